// The page of one ticket: its pane, what is known of it, what it waits for, and a box to say something.

import { logoutButton, post } from "./api.js";
import { age, by, dialogs, pageKeys, words } from "./dom.js";
import { Keyboard } from "./input.js";
import { notifyButton, setTitle, tell } from "./notify.js";
import { Panels } from "./panels.js";
import { showRequests } from "./permission.js";
import { Stream } from "./stream.js";
import { Talk } from "./talk.js";

const page = by("ticket");
const ticket = page.dataset.ticket;
const path = `/api/ticket/${ticket}`;
const viewer = crypto.randomUUID?.() ?? Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(16)).join("-");
const talk = new Talk(ticket);
const panels = new Panels(ticket);
let state = { id: ticket, title: page.dataset.title, status: page.dataset.status, turn_state: page.dataset.turn };
let lastSign = page.dataset.sign;
let keyboard = null;
let sizing = 0;

async function openPane() {
  try {
    const { Pane } = await import("./terminal.js");
    return new Pane(by("terminal"), Number(page.dataset.columns), Number(page.dataset.rows));
  } catch (error) {
    console.error(error);
    by("terminal").textContent = "The terminal cannot be shown: its code did not load. Look with: tmux attach";
    by("control").disabled = true;
    return { write() {}, restart() {}, repaint() {}, find() {} };
  }
}

function showLine(kind, text) {
  by("connection").dataset.state = kind;
  by("connection").textContent = text;
}

function showState(now) {
  state = now;
  by("title").textContent = now.title;
  by("status").dataset.status = now.status;
  by("status").textContent = words(now.status);
  by("turn").dataset.turn = now.turn_state;
  by("turn").textContent = words(now.turn_state);
  lastSign = now.last_sign_at;
  by("sign").textContent = age(lastSign);
  const closed = now.status === "closed";
  const runs = now.turn_state !== "gone";
  talk.close(closed);
  by("start").hidden = runs || closed;
  by("stop").hidden = by("restart").hidden = by("interrupt").hidden = !runs;
  by("close").hidden = closed;
  by("reopen").hidden = !closed;
  by("control").disabled = !runs;
  setTitle(`#${now.id} ${now.title} · Mission Control`);
  const waits = now.status === "needs_input" || ["waiting_permission", "waiting_answer", "api_error"].includes(now.turn_state);
  tell(waits && !closed ? [{ id: now.id, title: now.title, what: words(now.turn_state) }] : []);
}

function showCost(cost) {
  by("cost").textContent = `$${cost.cost_usd.toFixed(2)}`;
  by("cost").title = `${cost.input_tokens} tokens in, ${cost.output_tokens} out`;
}

function showHolder({ holder }) {
  const mine = holder === viewer;
  if (keyboard && keyboard.enabled !== mine) keyboard.enable(mine);
  by("control").textContent = mine ? "Release" : "Take control";
  by("control").setAttribute("aria-pressed", String(mine));
  by("terminal").classList.toggle("in-control", mine);
  by("keybar").hidden = !mine;
  by("control-note").textContent = mine
    ? "You are typing into the pane. Ctrl+Shift+Enter gives it back."
    : holder ? "Somebody else is typing." : "You are looking; nothing you type goes to the pane.";
  if (mine) resize();
}

async function act(verb, { ask = "", body = {}, conflict = null } = {}) {
  if (ask && !confirm(ask)) return null;
  const buttons = [...document.querySelectorAll(".actions button")];
  for (const button of buttons) button.disabled = true;
  try {
    talk.problem("");
    return await post(`${path}/${verb}`, body);
  } catch (error) {
    if (error.code === "conflict" && conflict?.(error.message)) return null;
    talk.problem(error.message);
    return null;
  } finally {
    for (const button of buttons) button.disabled = false;
  }
}

async function control(action) {
  const done = await act("control", { body: { viewer, action } });
  if (done) showHolder(done);
}

function resize() {
  clearTimeout(sizing);
  sizing = setTimeout(async () => {
    if (!keyboard?.enabled) return;
    const wanted = pane.wanted();
    if (wanted.columns === pane.terminal.cols && wanted.rows === pane.terminal.rows) return;
    await post(`${path}/resize`, { viewer, ...wanted }).catch((error) => talk.problem(error.message));
  }, 200);
}

logoutButton();
dialogs();
notifyButton(by("notify"));
by("start").onclick = () => act("start");
by("stop").onclick = () => act("stop", { ask: "Stop the worker? Its conversation stays." });
by("restart").onclick = () => act("restart", { ask: "Restart the worker? It goes on with its conversation." });
by("close").onclick = async () => {
  if (!confirm("Close this ticket? The worker is stopped, and what it did is archived.")) return;
  await act("close", {
    conflict: (text) => confirm(`${text}\n\nClose it, and leave the worktree where it is?`) && act("close", { body: { keep_worktree: true } }),
  });
};
by("reopen").onclick = async () => {
  if (await act("reopen")) location.reload(); // its stream has ended
};
by("interrupt").onclick = () => act("interrupt");
by("control").onclick = () => control(keyboard?.enabled ? "release" : "take");
const left = sessionStorage.getItem("mc-problem");
if (left) talk.problem(left);
sessionStorage.removeItem("mc-problem");

const pane = await openPane();
if (pane.terminal) {
  keyboard = new Keyboard(ticket, viewer, pane, by("keybar"), {
    lost: () => showHolder({ holder: "" }),
    problem: (text) => talk.problem(text),
    release: () => {
      control("release");
      by("control").focus();
    },
  });
  keyboard.enable(false);
  pane.onresize = resize;
  const find = by("find");
  pane.onfound = (at, count) => {
    by("found").textContent = find.value === "" ? "" : count === 0 ? "not found" : at < 0 ? `${count} found` : `${at + 1} of ${count}`;
  };
  find.addEventListener("input", () => {
    by("found").textContent = "";
    pane.find(find.value, { more: true });
  });
  find.addEventListener("keydown", (event) => {
    if (event.key === "Enter") pane.find(find.value, { back: event.shiftKey });
    if (event.key === "Escape") {
      find.value = by("found").textContent = "";
      pane.find("");
    }
  });
}
pageKeys({
  i: () => by("text").focus(), t: () => by("control").click(), "/": () => by("find").focus(),
  b: () => location.assign("/"), "?": () => by("help").showModal(),
});
globalThis.missionControl = { terminal: pane.terminal, renderer: pane.renderer, viewer };

const stream = new Stream(path, {
  repaint: (screen) => pane.repaint(screen),
  pane: (data) => pane.write(data),
  gap: ({ reason }) => reason !== "behind" && pane.restart(`[the log was ${reason}; some output is not shown]`),
  state: showState,
  cost: showCost,
  queue: (queue) => talk.show(queue),
  control: showHolder,
  permission: ({ requests }) => showRequests(by("permission"), ticket, requests),
  activity: () => panels.soon(),
  comment: () => panels.shown === "comments" && panels.soon(),
  turn_end: () => panels.shown === "diff" && panels.soon(),
  end: () => {},
  line: showLine,
});
setInterval(() => (by("sign").textContent = age(lastSign)), 10000);
addEventListener("pagehide", () => {
  stream.close();
  if (!keyboard?.enabled) return;
  const token = document.querySelector('meta[name="csrf-token"]').content;
  fetch(`${path}/control`, {
    method: "POST", keepalive: true, body: JSON.stringify({ viewer, action: "release" }),
    headers: { "Content-Type": "application/json", "X-CSRF-Token": token },
  }).catch(() => {});
});
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});
