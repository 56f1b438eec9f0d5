// Small behaviours of every page. All of them are extras: forms and links work by themselves.

// Buttons marked `hidden` need this script; now it is here.
for (const button of document.querySelectorAll("[data-copies][hidden], [data-reveals][hidden]")) button.hidden = false;

document.addEventListener("click", (event) => {
  const target = event.target instanceof Element ? event.target : null;
  if (!target) return;

  // <button data-opens="id"> opens a dialog; <button data-closes> closes the one it is in.
  const opener = target.closest("[data-opens]");
  if (opener) document.getElementById(opener.dataset.opens)?.showModal();
  if (target.closest("[data-closes]")) target.closest("dialog")?.close();

  // <button data-copies="text"> or <button data-copies-from="id"> copies, and says so.
  const copier = target.closest("[data-copies], [data-copies-from]");
  if (copier) copy(copier);

  // <button data-reveals="id"> shows and hides what a password field holds.
  const revealer = target.closest("[data-reveals]");
  if (revealer) {
    const input = document.getElementById(revealer.dataset.reveals);
    const shown = input.type === "password";
    input.type = shown ? "text" : "password";
    revealer.setAttribute("aria-pressed", String(shown));
  }

  // A click elsewhere closes an open menu.
  for (const menu of document.querySelectorAll("details[data-menu][open]")) {
    if (!menu.contains(target)) menu.open = false;
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  freeForms();
  for (const menu of document.querySelectorAll("details[data-menu][open]")) {
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});

// A form is sent once, however often its button is pressed; the button says that it is being sent.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post" || event.defaultPrevented) return;
  if (form.dataset.sent) return event.preventDefault();
  form.dataset.sent = "yes";
  event.submitter?.setAttribute("aria-busy", "true");
  setTimeout(freeForms, 10_000);
});
// Until one comes back to it, or stops the sending: with Escape, or with the browser's button, of which nobody tells us.
addEventListener("pageshow", freeForms);

function freeForms() {
  for (const form of document.querySelectorAll("form[data-sent]")) {
    delete form.dataset.sent;
    form.querySelector("[aria-busy]")?.removeAttribute("aria-busy");
  }
}

// A dialog that belongs to what was just sent (a form with an error, a new token) opens by itself.
document.querySelector("dialog[data-open]")?.showModal();

// On a phone the settings navigation is one line: show the part with the current page.
const here = document.querySelector(".side-nav [aria-current]");
const line = here?.closest(".side-nav");
if (line && line.scrollWidth > line.clientWidth) line.scrollLeft = here.offsetLeft - (line.clientWidth - here.offsetWidth) / 2;

async function copy(button) {
  const source = button.dataset.copiesFrom && document.getElementById(button.dataset.copiesFrom);
  const text = source ? (source.value ?? source.textContent) : button.dataset.copies;
  const label = button.querySelector("span") ?? button;
  const before = button.dataset.label ?? label.textContent;
  button.dataset.label = before;
  try {
    await navigator.clipboard.writeText(text);
    label.textContent = "Copied";
  } catch {
    // No clipboard without TLS: select the text instead, so that one key press copies it.
    const shown = source ?? button.parentElement.querySelector("code");
    if (shown instanceof HTMLInputElement) shown.select();
    else if (shown) getSelection().selectAllChildren(shown);
    label.textContent = "Press Ctrl+C";
  } finally {
    setTimeout(() => (label.textContent = before), 2000);
  }
}
