// What the worker asks leave for: the tool and its input, and buttons that answer by the way it was
// asked. A question has its options instead.

import { post } from "./api.js";
import { el } from "./dom.js";

function inputRows(input) {
  const rows = [];
  for (const [name, value] of Object.entries(input)) {
    const text = typeof value === "string" ? value : JSON.stringify(value, null, 2);
    rows.push(el("dt", {}, name), el("dd", {}, el("pre", {}, text)));
  }
  return el("dl", { className: "tool-input" }, ...rows);
}

function questionFields(request) {
  const fields = [];
  for (const [number, question] of (request.input.questions ?? []).entries()) {
    const options = (question.options ?? []).map((option) =>
      el("label", { className: "option" },
        el("input", { type: question.multiSelect ? "checkbox" : "radio", name: `${request.request}-${number}`, value: option.label }),
        el("span", {}, option.label, option.description ? el("small", {}, option.description) : "")));
    const other = el("input", { type: "text", className: "other", "aria-label": "Another answer", placeholder: "Another answer" });
    const field = el("fieldset", {}, el("legend", {}, question.question), ...options, other);
    fields.push({ question, field, other });
  }
  return fields;
}

function answersOf(fields) {
  const answers = {};
  for (const { question, field, other } of fields) {
    const chosen = [...field.querySelectorAll("input:checked")].map((input) => input.value);
    if (other.value.trim()) chosen.push(other.value.trim());
    if (chosen.length === 0) return null;
    answers[question.question] = chosen.join(", ");
  }
  return answers;
}

function card(ticket, request) {
  const problem = el("p", { className: "problem", role: "alert", hidden: true });
  const fields = request.is_question ? questionFields(request) : [];
  const buttons = [];
  const answer = async (behavior, more) => {
    for (const button of buttons) button.disabled = true;
    try {
      await post(`/api/ticket/${ticket}/permission`, { request: request.request, behavior, ...more });
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
      for (const button of buttons) button.disabled = false;
    }
  };
  const allow = () => {
    if (!request.is_question) return answer("allow", {});
    const answers = answersOf(fields);
    if (answers) return answer("allow", { answers });
    problem.textContent = "Choose an answer to each question.";
    problem.hidden = false;
  };
  const why = el("input", { type: "text", className: "why", "aria-label": "Why not, told to the worker", placeholder: "Why not (told to the worker)" });
  const deny = () => answer("deny", why.value.trim() ? { message: why.value.trim() } : {});
  buttons.push(
    el("button", { type: "button", className: "allow", onclick: allow }, request.is_question ? "Answer" : "Allow"),
    el("button", { type: "button", className: "deny quiet-button", onclick: deny }, request.is_question ? "Dismiss" : "Deny"),
  );
  return el("article", { className: "request", dataset: { request: request.request } },
    el("h2", {}, request.is_question ? "The worker asks" : "The worker wants to use ", request.is_question ? "" : el("code", {}, request.tool)),
    ...(request.is_question ? fields.map(({ field }) => field) : [inputRows(request.input)]),
    el("div", { className: "answer" }, ...buttons, request.is_question ? "" : why), problem);
}

/** Shows the open requests; what is being filled in stays. */
export function showRequests(area, ticket, requests) {
  const shown = new Map([...area.children].map((child) => [child.dataset.request, child]));
  area.replaceChildren(...requests.map((request) => shown.get(request.request) ?? card(ticket, request)));
  area.hidden = requests.length === 0;
}
