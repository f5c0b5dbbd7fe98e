# Shorthands; everything here is one of the two commands of the README.
.DEFAULT_GOAL := help
.PHONY: help install demo test lint unit machine claude browser audit faults soak bench shell docs docs-site pictures recording wheel sbom release-notes clean

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 15

install: ## ./install.sh: install for this user
	./install.sh

demo: ## ./install.sh --demo: a look, in a throw-away machine (root)
	./install.sh --demo

test: ## tests/run: every test
	tests/run

lint unit machine claude browser audit: ## tests/run PART
	tests/run $@

faults: ## every drill of docs/faults.md, into benchmarks/results/faults.md (root; half an hour)
	folder=$$(mktemp -d) && MC_FAULTS_DIR=$$folder MC_DRILL_EMULATED=1 tests/run unit machine faults claude browser -m fault; \
	python3 -m tests.faults $$folder

soak: ## ten tickets and random faults for MINUTES=60, a ledger at the end (root)
	MC_SOAK_MINUTES=$(or $(MINUTES),60) tests/run tests/faults/test_soak.py --reruns 0 -s

bench: ## the figures of benchmarks/results, or ONLY=latency,echo; QUICK=1 for a look (root; half an hour)
	tests/run bench $(if $(ONLY),--only $(ONLY)) $(if $(QUICK),--quick)

shell: ## a shell in a throw-away machine with the product installed (root)
	python3 -m tests.machine shell --installed

docs: ## tests/run docs: the parts of docs/ that are made of the code
	tests/run docs

docs-site: docs ## the same: it ends with the documents as a site, in build/site

pictures: ## docs/images/*.png anew, from the page in a real Chromium (root)
	MC_PICTURES=1 MC_TEST_JOBS=1 tests/run tests/browser/test_pictures.py tests/browser/test_main_job.py -k "day or request or typed_in"

recording: ## docs/images/demo.svg anew, from a real run of the demo (root)
	python3 -m tests.make_recording

wheel: ## dist/: the wheel and the sdist, of the version that git's tags say
	tests/run exec python -m build

sbom: ## dist/: what comes with it, as CycloneDX
	tests/run exec python -m release.sbom

release-notes: ## what CHANGELOG.md says of VERSION=0.2.0 (or Unreleased)
	@python3 -m release.notes "$(VERSION)"

clean: ## remove cached test machines (root)
	python3 -m tests.machine clean
