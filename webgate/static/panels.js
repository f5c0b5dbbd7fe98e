// Beside the pane: turns and tools, the diff, comments, the unit. Each is fetched when it is looked at, and
// again when the stream says that something happened.

import { get, post } from "./api.js";
import { age, by, bytes, clock, duration, el, words } from "./dom.js";

function empty(text) {
  return el("p", { className: "none" }, text);
}

function turnItem(turn) {
  const facts = [el("time", { dateTime: turn.began_at }, clock(turn.began_at)), el("span", {}, duration(turn.duration_s))];
  if (turn.cost_usd !== null) facts.push(el("span", {}, `$${turn.cost_usd.toFixed(3)}`));
  const tools = turn.tools.map((tool) =>
    el("li", { className: tool.failed ? "failed" : "" },
      el("code", {}, tool.name), el("span", { className: "what" }, tool.what),
      el("span", { className: "took" }, tool.failed ? `failed, ${duration(tool.duration_s)}` : duration(tool.duration_s))));
  if (turn.more_tools) tools.push(el("li", {}, `and ${turn.more_tools} more`));
  return el("li", { className: "turn-item" },
    el("p", { className: "asked" }, turn.prompt || "(no text)"),
    el("p", { className: "facts" }, ...facts),
    tools.length ? el("ol", { className: "tools" }, ...tools) : "",
    turn.error ? el("p", { className: "problem" }, turn.error) : "",
    turn.answer ? el("p", { className: "answered" }, turn.answer) : "");
}

function fileItem(file) {
  const count = file.binary ? "binary" : file.added === null ? "" : `+${file.added} −${file.removed}`;
  const lines = file.hunks.map((hunk) =>
    el("pre", { className: "hunk" },
      el("span", { className: "hunk-head" }, `@@ ${hunk.old_start} → ${hunk.new_start} ${hunk.heading}\n`),
      ...hunk.lines.map((text) =>
        el("span", { className: text[0] === "+" ? "added" : text[0] === "-" ? "removed" : "" }, `${text}\n`))));
  return el("details", { className: "file" },
    el("summary", {}, el("span", { className: "path" }, file.old_path ? `${file.old_path} → ${file.path}` : file.path),
      el("span", { className: `change ${file.status}` }, words(file.status)), el("span", { className: "took" }, count)),
    file.omitted ? empty(`Not shown: ${file.omitted}`) : "", ...lines);
}

// What is used, and the ceiling where there is one.
const most = (shown, ceiling, written = String) => (ceiling === null ? shown : `${shown} of at most ${written(ceiling)}`);

const SHOW = {
  async timeline(ticket) {
    const { turns } = await get(`/api/ticket/${ticket}/timeline`);
    if (turns.length === 0) return [empty("No turns yet. They appear when the worker is given something to do.")];
    return [el("ol", { className: "turns" }, ...turns.reverse().map(turnItem))];
  },
  async diff(ticket) {
    const diff = await get(`/api/ticket/${ticket}/diff`);
    if (diff.files.length === 0) return [empty("Nothing differs from the base.")];
    const open = new Set([...document.querySelectorAll("#panel-diff details[open] .path")].map((path) => path.textContent));
    const files = diff.files.map(fileItem);
    for (const file of files) file.open = open.has(file.querySelector(".path").textContent) || files.length === 1;
    const head = `${diff.files.length} ${diff.files.length === 1 ? "file" : "files"}, +${diff.added} −${diff.removed}, against ${diff.base_sha.slice(0, 10)}`;
    return [el("p", { className: "facts" }, diff.truncated ? `${head}; some of it is left out` : head), ...files];
  },
  async comments(ticket) {
    const { comments } = await get(`/api/ticket/${ticket}/comments`);
    if (comments.length === 0) return [empty("No comments yet. The worker does not see them.")];
    return [el("ol", { className: "comments" }, ...comments.reverse().map((comment) =>
      el("li", {}, el("p", { className: "said" }, comment.text),
        el("p", { className: "facts" }, el("span", {}, comment.author), el("time", { dateTime: comment.created_at }, age(comment.created_at))))))];
  },
  async unit(ticket) {
    const unit = await get(`/api/ticket/${ticket}/unit`);
    const rows = {
      Unit: unit.unit, State: `${unit.active} (${unit.sub})${unit.result !== "success" ? `, ${unit.result}` : ""}`,
      "Main PID": unit.main_pid || "–", Memory: most(bytes(unit.memory_bytes), unit.memory_max_bytes, bytes),
      "CPU time": unit.cpu_s === null ? "–" : duration(unit.cpu_s), Tasks: most(unit.tasks ?? "–", unit.tasks_max),
      "CPU weight": unit.cpu_weight ?? "–", Restarts: unit.restarts,
      Says: unit.status_text || "–",
    };
    return [el("dl", { className: "unit" }, ...Object.entries(rows).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))]))];
  },
};

export class Panels {
  #timer = 0;

  constructor(ticket) {
    this.ticket = ticket;
    this.tabs = [...document.querySelectorAll('[role="tab"]')];
    for (const tab of this.tabs) {
      tab.addEventListener("click", () => this.show(tab.dataset.panel));
      tab.addEventListener("keydown", (event) => this.#arrow(event, tab));
    }
    by("comment-form").addEventListener("submit", (event) => this.#comment(event));
    this.show("timeline");
    setInterval(() => this.shown === "unit" && !document.hidden && this.renew(), 5000);
  }

  show(name) {
    this.shown = name;
    for (const tab of this.tabs) {
      const chosen = tab.dataset.panel === name;
      tab.setAttribute("aria-selected", String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
      by(`panel-${tab.dataset.panel}`).hidden = !chosen;
    }
    this.renew();
  }

  /** Something happened: what is looked at is fetched again, soon and once. */
  soon() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.renew(), 400);
  }

  async renew() {
    const name = this.shown;
    const area = by(`panel-${name}`).querySelector(".panel-body");
    try {
      area.replaceChildren(...(await SHOW[name](this.ticket)));
    } catch (error) {
      if (area.childElementCount === 0 || error.status !== 0) area.replaceChildren(empty(error.message));
    }
  }

  #arrow(event, tab) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = this.tabs[(this.tabs.indexOf(tab) + step + this.tabs.length) % this.tabs.length];
    next.focus();
    this.show(next.dataset.panel);
  }

  async #comment(event) {
    event.preventDefault();
    const box = by("comment-text");
    if (box.value.trim() === "") return;
    try {
      await post(`/api/ticket/${this.ticket}/comments`, { text: box.value });
      box.value = "";
      this.renew();
    } catch (error) {
      by("panel-comments").querySelector(".panel-body").replaceChildren(empty(error.message));
    }
  }
}
