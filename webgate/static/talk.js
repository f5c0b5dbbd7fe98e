// The box to say something to the worker, and what became of what was said.

import { post } from "./api.js";
import { by, clock, el } from "./dom.js";

function messageItem(ticket, message) {
  const cancel = el("button", {
    type: "button", className: "quiet-button", hidden: message.outcome !== "queued",
    onclick: (event) => {
      event.target.disabled = true;
      post(`/api/ticket/${ticket}/cancel`, { message: message.id }).catch(() => {});
    },
  }, "Cancel");
  const outcome = el("span", { className: "outcome", dataset: { outcome: message.outcome } }, message.outcome);
  return el("li", {},
    el("p", { className: "said" }, message.text),
    el("p", { className: "facts" }, outcome, message.reason ? el("span", {}, message.reason) : "",
      el("time", { dateTime: message.created_at }, clock(message.created_at)), cancel));
}

export class Talk {
  #said = []; // oldest first
  #at = -1; // in the history, from its newest; -1 is what is being written
  #draft = "";

  constructor(ticket) {
    this.ticket = ticket;
    this.path = `/api/ticket/${ticket}/input`;
    this.box = by("text");
    by("send").addEventListener("submit", (event) => this.#send(event));
    this.box.addEventListener("keydown", (event) => this.#key(event));
    this.#said = [...document.querySelectorAll("#messages .said")].map((said) => said.textContent).reverse();
  }

  show({ messages }) {
    by("messages").replaceChildren(...messages.map((message) => messageItem(this.ticket, message)).reverse());
    for (const { text } of messages) if (!this.#said.includes(text)) this.#said.push(text);
  }

  close(closed) {
    this.box.disabled = by("send-button").disabled = closed;
  }

  problem(text) {
    by("problem").textContent = text;
    by("problem").hidden = text === "";
  }

  #key(event) {
    // isComposing: Enter that ends a composed character sends nothing.
    if (event.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey) return this.#send(event);
    const plain = !event.shiftKey && !event.ctrlKey && !event.altKey && !event.metaKey;
    const { value, selectionStart } = this.box;
    if (plain && event.key === "ArrowUp" && !value.slice(0, selectionStart).includes("\n")) this.#recall(event, 1);
    if (plain && event.key === "ArrowDown" && this.#at >= 0 && !value.slice(selectionStart).includes("\n")) this.#recall(event, -1);
  }

  #recall(event, step) {
    const at = this.#at + step;
    if (at >= this.#said.length) return;
    event.preventDefault();
    if (this.#at < 0) this.#draft = this.box.value;
    this.#at = at;
    this.box.value = at < 0 ? this.#draft : this.#said.at(-1 - at);
    this.box.setSelectionRange(this.box.value.length, this.box.value.length);
  }

  async #send(event) {
    event.preventDefault();
    const text = this.box.value;
    const button = by("send-button");
    if (text.trim() === "" || button.disabled) return;
    button.disabled = true;
    try {
      await post(this.path, { text });
      if (this.box.value === text) this.box.value = "";
      this.#said = [...this.#said.filter((said) => said !== text), text];
      this.#at = -1;
      this.problem("");
    } catch (error) {
      this.problem(error.message);
    } finally {
      button.disabled = this.box.disabled;
      this.box.focus();
    }
  }
}
