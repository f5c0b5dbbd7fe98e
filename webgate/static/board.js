// The board renews itself: the server renders it, the stream says when, this puts the newer one in place.

import { logoutButton, post } from "./api.js";
import { by, dialogs, pageKeys } from "./dom.js";
import { notifyButton, setTitle, tell } from "./notify.js";
import { Stream } from "./stream.js";

const GATHER_MS = 250; // a burst of changes is one renewal
const LATEST_MS = 30000; // ages grow although nothing happens
const line = by("line");
let timer = 0;
let renewed = 0;

function say(text) {
  line.textContent = text;
  line.hidden = text === "";
}

function filter() {
  const wanted = by("filter").value.trim().toLowerCase().split(/\s+/);
  for (const column of document.querySelectorAll(".column")) {
    const cards = [...column.querySelectorAll(".ticket")];
    for (const card of cards) {
      const text = card.textContent.toLowerCase();
      card.hidden = !wanted.every((word) => text.includes(word));
    }
    const shown = cards.filter((card) => !card.hidden).length;
    column.querySelector(".count").textContent = shown === cards.length ? `${shown}` : `${shown} of ${cards.length}`;
  }
}

function tellWaiting() {
  const cards = [...document.querySelectorAll(".column.waiting .ticket")];
  tell(cards.map((card) => ({
    id: card.dataset.ticket, title: card.dataset.title, what: card.querySelector(".turn").textContent,
  })));
}

async function renew() {
  renewed = Date.now();
  let answer;
  try {
    answer = await fetch(location.pathname + location.search, { headers: { Accept: "text/html" } });
  } catch {
    return; // the stream says so
  }
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("board");
  const shown = by("board");
  if (!fresh || fresh.innerHTML === shown.innerHTML) return;
  const focused = document.activeElement?.closest?.(".ticket")?.dataset.ticket;
  shown.replaceWith(document.adoptNode(fresh));
  filter();
  tellWaiting();
  if (focused) document.querySelector(`.ticket[data-ticket="${focused}"]`)?.focus();
}

function soon() {
  clearTimeout(timer);
  timer = setTimeout(renew, GATHER_MS);
}

function move(step) {
  const cards = [...document.querySelectorAll(".ticket")].filter((card) => !card.hidden);
  const at = cards.indexOf(document.activeElement);
  cards[Math.max(0, Math.min(cards.length - 1, at < 0 ? 0 : at + step))]?.focus();
}

async function create(event) {
  event.preventDefault();
  const form = event.target;
  const given = { title: form.title.value, start: form.start.checked };
  for (const name of ["prompt", "repo", "base", "driver"]) {
    if (form[name].value.trim()) given[name] = form[name].value;
  }
  const problem = by("new-problem");
  const button = form.querySelector("[type=submit]");
  button.disabled = true;
  try {
    const made = await post("/api/tickets", given);
    if (made.start_problem) sessionStorage.setItem("mc-problem", `${made.start_problem.message} ${made.start_problem.hint}`);
    location.assign(`/ticket/${made.id}`);
  } catch (error) {
    problem.textContent = error.message;
    problem.hidden = false;
  } finally {
    button.disabled = false;
  }
}

setTitle("Board · Mission Control");
logoutButton();
dialogs();
notifyButton(by("notify"));
tellWaiting();
by("filter").addEventListener("input", filter);
by("filter").addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  event.target.value = "";
  filter();
  event.target.blur();
});
by("new-form").addEventListener("submit", create);
pageKeys({
  j: () => move(1), k: () => move(-1), ArrowDown: () => move(1), ArrowUp: () => move(-1),
  n: () => by("new").showModal(), "/": () => by("filter").focus(), "?": () => by("help").showModal(),
});
const stream = new Stream("/api", {
  tickets: soon,
  line: (state, text) => say(state === "live" ? "" : text[0].toUpperCase() + text.slice(1)),
});
setInterval(() => {
  if (!document.hidden && Date.now() - renewed > LATEST_MS) renew();
}, LATEST_MS / 2);
addEventListener("pagehide", () => stream.close());
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});
