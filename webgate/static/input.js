// What a person types and pastes into the pane, once this page has control. Only events of a keyboard, a
// phone's input method, the clipboard and the key bar come in here; xterm.js itself never speaks.

import { post } from "./api.js";

const NAMED = { Esc: "\x1b", Tab: "\t", Enter: "\r" };
const ARROWS = { "↑": "A", "↓": "B", "→": "C", "←": "D" };

export class Keyboard {
  #queue = [];
  #sending = false;
  #ctrl = false;
  #pressed = false; // a key that comes again as the text it made

  /** `on`: lost(sentence) when somebody else took control, problem(sentence), release(). */
  constructor(ticket, viewer, pane, bar, on) {
    this.path = `/api/ticket/${ticket}/keys`;
    this.viewer = viewer;
    this.pane = pane;
    this.on = on;
    this.enabled = false;
    this.bar = bar;
    const { terminal } = pane;
    terminal.attachCustomKeyEventHandler((event) => this.#wants(event));
    terminal.onKey(({ key, domEvent }) => {
      this.#pressed = domEvent.type === "keypress";
      this.#type(key);
    });
    const area = terminal.textarea;
    area.addEventListener("input", (event) => this.#fromInputMethod(event), true);
    area.addEventListener("compositionend", (event) => this.#text(event.data), true);
    pane.element.addEventListener("paste", (event) => this.#paste(event), true);
    for (const button of bar.querySelectorAll("button")) {
      button.addEventListener("click", () => this.#bar(button));
    }
  }

  enable(yes) {
    this.enabled = yes;
    this.#queue = [];
    this.#hold(false);
    this.pane.terminal.textarea.readOnly = !yes;
    this.pane.terminal.options.cursorBlink = yes;
    if (yes) this.pane.terminal.focus();
  }

  /** False keeps a key from xterm.js, and with it from the pane: it is the browser's. */
  #wants(event) {
    if (event.type === "keydown") this.#pressed = false;
    if (!this.enabled) return false;
    if (event.ctrlKey && event.shiftKey && event.key === "Enter") {
      if (event.type === "keydown") this.on.release();
      event.preventDefault();
      return false;
    }
    const key = event.key.toLowerCase();
    const command = event.ctrlKey || event.metaKey;
    if (command && key === "v") return false;
    if (event.shiftKey && key === "insert") return false;
    return !(command && key === "c" && this.pane.terminal.hasSelection());
  }

  #type(key) {
    if (!this.enabled) return;
    if (this.#ctrl && key.length === 1) {
      key = String.fromCharCode(key.toUpperCase().charCodeAt(0) & 0x1f);
      this.#hold(false);
    }
    const last = this.#queue.at(-1);
    if (last?.keys && last.keys.length < 1000) last.keys += key;
    else this.#queue.push({ keys: key });
    this.#send();
  }

  /** Letters of a phone's keyboard, which come as text and not as keys. */
  #fromInputMethod(event) {
    if (event.isComposing || event.inputType === "insertCompositionText") return;
    if (this.#pressed) this.#pressed = false;
    else if (event.inputType === "insertText") this.#text(event.data);
    else if (event.inputType === "insertLineBreak") this.#type("\r");
    else if (event.inputType === "deleteContentBackward") this.#type("\x7f");
    event.target.value = "";
  }

  #text(text) {
    if (text) this.#type(text.replaceAll("\n", "\r"));
  }

  #paste(event) {
    event.preventDefault();
    event.stopImmediatePropagation();
    const text = event.clipboardData?.getData("text/plain") ?? "";
    if (!this.enabled || text === "") return;
    this.#queue.push({ paste: text });
    this.#send();
  }

  #bar(button) {
    const name = button.dataset.key;
    if (name === "Ctrl") this.#hold(!this.#ctrl);
    else if (name in NAMED) this.#type(NAMED[name]);
    else {
      const application = this.pane.terminal.modes.applicationCursorKeysMode;
      this.#type(`\x1b${application ? "O" : "["}${ARROWS[name]}`);
    }
    this.pane.terminal.focus();
  }

  #hold(yes) {
    this.#ctrl = yes;
    this.bar.querySelector('[data-key="Ctrl"]').setAttribute("aria-pressed", String(yes));
  }

  // One request at a time, so that keys stay in order; what is typed meanwhile goes along with the next.
  async #send() {
    if (this.#sending) return;
    this.#sending = true;
    try {
      while (this.#queue.length > 0) {
        const next = this.#queue.shift();
        await post(this.path, { viewer: this.viewer, ...next });
      }
    } catch (error) {
      this.#queue = [];
      if (error.code === "not-in-control") this.on.lost();
      else this.on.problem(error.message);
    } finally {
      this.#sending = false;
    }
  }
}
