// The one stream of a page. EventSource comes back by itself after a broken connection, with the exact
// byte it has; after an answer that is no stream it gives up, and then this comes back in its place.

const AGAIN_MS = [1000, 2000, 5000, 10000];

export function bytesOf(base64) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(base64);
  const text = atob(base64);
  const found = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) found[i] = text.charCodeAt(i);
  return found;
}

/** `on`: a function for each kind of event, which gets its data; and line(state, text). */
export class Stream {
  #source = null;
  #last = "";
  #tries = 0;
  #timer = 0;

  constructor(path, on) {
    this.path = path;
    this.on = on;
    addEventListener("offline", () => this.on.line("connecting", "this device is offline"));
    addEventListener("online", () => this.#now());
    this.#open();
  }

  close() {
    clearTimeout(this.#timer);
    this.#source?.close();
  }

  #now() {
    this.close();
    this.#open();
  }

  #open() {
    const after = this.#last ? `?after=${encodeURIComponent(this.#last)}` : "";
    const source = (this.#source = new EventSource(`${this.path}/stream${after}`));
    source.onopen = () => {
      this.#tries = 0;
      this.on.line("live", "live");
    };
    source.onerror = () => {
      if (source !== this.#source) return;
      if (source.readyState === EventSource.CLOSED) this.#again();
      else this.on.line("connecting", "connection lost, coming back…");
    };
    for (const kind of Object.keys(this.on)) {
      if (kind === "line" || kind === "end") continue;
      source.addEventListener(kind, (event) => {
        if (event.lastEventId) this.#last = event.lastEventId;
        this.on[kind](kind === "pane" ? bytesOf(event.data) : JSON.parse(event.data));
      });
    }
    source.addEventListener("end", (event) => {
      source.close();
      const { reason } = JSON.parse(event.data);
      this.on.line("ended", reason);
      this.on.end?.(reason);
    });
  }

  async #again() {
    const wait = AGAIN_MS[Math.min(this.#tries++, AGAIN_MS.length - 1)];
    const answer = await fetch(this.path === "/api" ? "/api/tickets" : this.path).catch(() => null);
    if (answer?.status === 401) return this.on.line("lost", "logged out; run: ticketctl open");
    if (answer?.status === 404) return this.on.line("lost", "there is no such ticket");
    this.on.line("connecting", answer?.status === 503 ? "the gateway is busy, coming back…" : "connection lost, coming back…");
    this.#timer = setTimeout(() => this.#open(), wait);
  }
}
