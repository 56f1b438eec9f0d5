// The assistant's stream: sends the question, shows the answer as it is written, and stops it.
// Without this script the form works too; the page comes back when the answer is whole.

const form = document.querySelector("form[data-chat]");
const box = form.elements.message;
const log = document.getElementById("log");
const sendButton = form.querySelector("[data-send]");
const stopButton = form.querySelector("[data-stop]");
let running = null;
let outdated = false;

const earlier = document.querySelector(".history-list");
if (matchMedia("(min-width: 60rem)").matches) earlier.open = true;
showLatest();

// Enter sends; Shift+Enter starts a line. While a character is being composed, Enter belongs to the input method.
box.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  if (!running) form.requestSubmit();
});

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!running && box.value.trim()) ask(box.value.trim());
});
stopButton.addEventListener("click", () => running?.abort());

async function ask(question) {
  running = new AbortController();
  document.getElementById("welcome")?.remove();
  for (const old of log.querySelectorAll(".bubble-error")) old.remove();
  const asked = bubble("bubble-user", "You: ", question);
  const answer = bubble("bubble-assistant is-plain", "Assistant: ", "");
  answer.setAttribute("aria-busy", "true");
  box.value = "";
  busy(true);
  showLatest();
  try {
    if (outdated) await renew();
    const body = new URLSearchParams(new FormData(form));
    body.set("message", question);
    const reply = await fetch(form.action, {
      method: "POST",
      body,
      headers: { accept: "text/event-stream, application/problem+json" },
      signal: running.signal,
    });
    if (reply.ok) await read(reply, answer);
    else await refused(reply, asked, answer, question);
  } catch (error) {
    brokenOff(error, asked, answer, question);
  } finally {
    answer.removeAttribute("aria-busy");
    running = null;
    busy(false);
    box.focus({ preventScroll: true });
  }
}

async function read(reply, answer) {
  const text = answer.appendChild(document.createTextNode(""));
  let ended = false;
  for await (const told of events(reply.body)) {
    const follow = atBottom();
    if (told.kind === "begin") begin(told, answer);
    if (told.kind === "text") text.data += told.text;
    if (told.kind === "end" || told.kind === "error") {
      ended = true;
      whole(answer, told.html, told.remark);
      if (told.refusal) log.insertAdjacentHTML("beforeend", told.refusal);
      if (told.status) document.getElementById("status").innerHTML = told.status;
    }
    if (follow) showLatest();
  }
  if (!ended) throw new Error("broken off");
}

// Pieces of the network into the JSON objects of server-sent events.
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) yield JSON.parse(part.slice("data: ".length));
  }
}

function begin(told, answer) {
  answer.dataset.servedBy = told.served_by;
  if (form.elements.conversation.value) return;
  form.elements.conversation.value = told.conversation;
  history.replaceState(null, "", `/assistant/${told.conversation}`);
  document.getElementById("none-yet")?.remove();
  const link = document.createElement("a");
  link.href = `/assistant/${told.conversation}`;
  link.textContent = told.title;
  link.setAttribute("aria-current", "page");
  const item = document.createElement("li");
  item.append(link);
  document.getElementById("conversations").prepend(item);
}

// The server has made HTML of the answer's Markdown, and cleaned it.
function whole(answer, html, remark) {
  answer.className = "bubble bubble-assistant prose";
  answer.innerHTML = '<span class="visually-hidden">Assistant: </span>' + html;
  if (answer.dataset.servedBy) note(answer, [answer.dataset.servedBy, remark].filter(Boolean).join(" · "));
}

async function refused(reply, asked, answer, question) {
  const problem = reply.headers.get("content-type")?.includes("json") ? await reply.json() : null;
  takeBack(asked, answer, question);
  if (problem?.html) log.insertAdjacentHTML("beforeend", problem.html);
  else failed(problem?.detail ?? "The answer could not be fetched. Try again in a moment.", reply.status);
  showLatest();
}

function brokenOff(error, asked, answer, question) {
  const stopped = error.name === "AbortError";
  if (!answer.dataset.servedBy) takeBack(asked, answer, question);
  else note(answer, `${answer.dataset.servedBy} · ${stopped ? "Stopped." : "The connection broke off."}`);
  showLatest();
  if (stopped || answer.dataset.servedBy) return;
  failed("The answer could not be fetched. Check your connection and try again.");
}

// What went wrong. Whoever is signed out, or elsewhere, gets on in another tab: this one keeps what was typed.
function failed(text, status) {
  const failure = bubble("bubble-error", "", text);
  failure.setAttribute("role", "alert");
  outdated = [401, 403, 409].includes(status);
  if (!outdated) return;
  const tab = document.createElement("a");
  Object.assign(tab, { href: location.pathname, target: "_blank", textContent: "Open this page in a new tab" });
  failure.append(" ", tab, ", then send your question again here.");
}

// The form is of a session that has ended. A new one will do if the same person is in the same workspace.
async function renew() {
  const page = new DOMParser().parseFromString(await (await fetch(location.pathname)).text(), "text/html");
  const fresh = page.querySelector("form[data-chat]");
  outdated = false;
  if (fresh?.dataset.chat === form.dataset.chat) form.elements.csrf.value = fresh.elements.csrf.value;
}

// A question without an answer was not kept: it goes back into the box.
function takeBack(asked, answer, question) {
  asked.remove();
  answer.remove();
  if (!box.value) box.value = question;
}

function bubble(kind, speaker, text) {
  const element = document.createElement("div");
  element.className = `bubble ${kind}`;
  if (speaker) {
    const hidden = element.appendChild(document.createElement("span"));
    hidden.className = "visually-hidden";
    hidden.textContent = speaker;
  }
  element.append(text);
  return log.appendChild(element);
}

function note(answer, text) {
  const line = answer.appendChild(document.createElement("p"));
  line.className = "bubble-meta";
  line.textContent = text;
}

function busy(now) {
  sendButton.hidden = now;
  stopButton.hidden = !now;
}

function atBottom() {
  return log.scrollHeight - log.scrollTop - log.clientHeight < 80;
}

function showLatest() {
  log.scrollTop = log.scrollHeight;
}
