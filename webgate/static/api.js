// Questions and changes, as the gateway wants them. Errors carry its sentence.

export class Problem extends Error {
  constructor(status, { problem = "failed", message = "The gateway does not answer.", hint = "" } = {}) {
    super([message, hint].filter(Boolean).join(" "));
    this.status = status;
    this.code = problem;
  }
}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Problem(0, { problem: "offline", message: "The gateway cannot be reached.", hint: "Nothing was done." });
  }
  const read = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Problem(answer.status, read);
  return read;
}

export const get = (path) => ask(path, { headers: { Accept: "application/json" } });

export function post(path, body = {}) {
  const token = document.querySelector('meta[name="csrf-token"]').content;
  return ask(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": token },
    body: JSON.stringify(body),
  });
}

export function logoutButton() {
  document.getElementById("logout").addEventListener("click", async () => {
    await post("/logout").catch(() => {});
    location.assign("/login");
  });
}
