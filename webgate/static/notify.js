// Tell a person who looks elsewhere that a ticket waits: the tab's title, the app's badge, and a
// notification of the browser, if the person asked for those. Once for each wait.

const known = new Set();
let title = document.title;

export function setTitle(text) {
  title = text;
}

/** `waiting`: [{ id, title, what }] of everything that waits for a person now. */
export function tell(waiting) {
  document.title = waiting.length ? `(${waiting.length}) ${title}` : title;
  if (waiting.length) navigator.setAppBadge?.(waiting.length).catch(() => {});
  else navigator.clearAppBadge?.().catch(() => {});
  for (const ticket of waiting) {
    if (known.has(ticket.id) || !document.hidden) continue;
    if (globalThis.Notification?.permission !== "granted") continue;
    const shown = new Notification(`#${ticket.id} ${ticket.title}`, { body: ticket.what, tag: `mc-${ticket.id}` });
    shown.onclick = () => {
      window.focus();
      location.assign(`/ticket/${ticket.id}`);
    };
  }
  known.clear();
  for (const ticket of waiting) known.add(ticket.id);
}

/** A button that asks the browser for leave; gone where there is nothing to ask. */
export function notifyButton(button) {
  const update = () => {
    button.hidden = !globalThis.Notification || Notification.permission !== "default";
  };
  button.addEventListener("click", async () => {
    await Notification.requestPermission();
    update();
  });
  update();
}
