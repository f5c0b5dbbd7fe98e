# Shorthands; everything here is one of the two commands of the README.
.DEFAULT_GOAL := help
.PHONY: help install demo test lint unit machine claude browser shell clean

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

install: ## ./install.sh: install for this user
	./install.sh

demo: ## ./install.sh --demo: a look, in a throw-away machine (root)
	./install.sh --demo

test: ## tests/run: every test
	tests/run

lint unit machine claude browser: ## tests/run PART
	tests/run $@

shell: ## a shell in a throw-away machine with the product installed (root)
	python3 -m tests.machine shell --installed

clean: ## remove cached test machines (root)
	python3 -m tests.machine clean
