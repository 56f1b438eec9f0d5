// Extras of the settings pages. Without this script every button below leads to a page that does the same.

document.addEventListener("click", (event) => {
  const target = event.target instanceof Element ? event.target : null;
  // A button that opens a dialog stands in a form that asks the same question on a page of its own.
  if (target?.closest("form[method=get] [data-opens]")) event.preventDefault();
  // And so does the link that leads away from the question.
  if (target?.closest("dialog a[data-closes]")) event.preventDefault();
});

// <select data-sends> sends its form when an option is chosen. With the keyboard one passes options on the way to the
// one that is meant, so there it waits for Enter, or for the form's button, which is there while something is unsent.
for (const select of document.querySelectorAll("select[data-sends]")) {
  let passing = false;
  const isSaved = () => select.selectedOptions[0].defaultSelected;
  const send = () => isSaved() || select.form.requestSubmit();
  const showButton = () => (select.form.querySelector("button").hidden = isSaved());
  select.addEventListener("keydown", (event) => {
    if (event.key === "Enter") send();
    else passing = true;
  });
  select.addEventListener("pointerdown", () => (passing = false));
  select.addEventListener("change", () => (passing ? showButton() : send()));
  addEventListener("pageshow", showButton); // a browser may have kept what was picked here before
}

// <form data-copies-first="id"> is sent when the text of that field is safely on the clipboard.
for (const form of document.querySelectorAll("form[data-copies-first]")) {
  let told = false;
  form.addEventListener("submit", async (event) => {
    if (told) return;
    event.preventDefault();
    const field = document.getElementById(form.dataset.copiesFirst);
    field.select();
    told = true;
    if (await copied(field)) return form.requestSubmit();
    const status = form.querySelector("[role=status]");
    status.className = "hint";
    status.textContent = "This browser does not let us copy. The token is selected: press Ctrl+C, then close.";
    form.querySelector("button").textContent = "Close";
  });
}

async function copied(field) {
  try {
    await navigator.clipboard.writeText(field.value);
    return true;
  } catch {
    return document.execCommand("copy"); // without TLS there is no clipboard, but there is this
  }
}

// On a narrow screen the chart of the month begins where its last bar is in sight.
const chart = document.querySelector(".chart-scroll");
const last = chart?.querySelector("rect:last-of-type");
if (last) {
  chart.scrollLeft += Math.max(0, last.getBoundingClientRect().right - chart.getBoundingClientRect().right + 24);
}
