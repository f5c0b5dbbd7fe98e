// Small things every page uses. Text goes in as text, never as markup.

export const by = (id) => document.getElementById(id);
export const words = (name) => name.replaceAll("_", " ");

/** el("p", { className: "x", dataset: { a: 1 } }, "text", child) */
export function el(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "dataset") Object.assign(element.dataset, value);
    else if (key.includes("-") || key === "role") element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

export function duration(seconds) {
  if (seconds === null) return "running";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

export function age(iso) {
  if (!iso) return "never";
  const seconds = Math.max(0, (Date.now() - new Date(iso)) / 1000);
  if (seconds < 60) return "now";
  return `${duration(seconds)} ago`;
}

export const clock = (iso) => new Date(iso).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

export function bytes(count) {
  if (count === null) return "–";
  for (const unit of ["B", "KiB", "MiB"]) {
    if (count < 1024) return `${count < 10 && unit !== "B" ? count.toFixed(1) : Math.round(count)} ${unit}`;
    count /= 1024;
  }
  return `${count.toFixed(1)} GiB`;
}

/** Keys of the page itself: not while somebody types, nor with modifiers. */
export function pageKeys(actions) {
  addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, textarea, select, [contenteditable], dialog, .xterm");
    if (typing || event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

/** Buttons that open and close <dialog>s: data-opens="id", data-closes. */
export function dialogs() {
  for (const button of document.querySelectorAll("[data-opens]")) {
    button.addEventListener("click", () => by(button.dataset.opens).showModal());
  }
  for (const button of document.querySelectorAll("[data-closes]")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
}

/** Asks before an address out of a terminal is opened; nothing but http and https ever is. */
export function askToOpen(text) {
  let address;
  try {
    address = new URL(text);
  } catch {
    return;
  }
  if (!["http:", "https:"].includes(address.protocol)) return;
  const dialog = by("open-link");
  by("open-link-address").textContent = address.href;
  by("open-link-yes").onclick = () => {
    dialog.close();
    window.open(address.href, "_blank", "noopener,noreferrer");
  };
  dialog.showModal();
}
