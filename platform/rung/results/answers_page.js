// Filters of answers.html. Without it the page shows everything.
"use strict";
const controls = document.getElementById("controls");
const chooser = document.getElementById("set");
const search = document.getElementById("search");
const count = document.getElementById("count");
const sets = [...document.querySelectorAll("section.set")];
const texts = new Map();

function plain(text) {
  return text.toLowerCase().replace(/\s+/g, " ");
}

function textOf(question) {
  if (!texts.has(question)) texts.set(question, plain(question.textContent));
  return texts.get(question);
}

function chosenSet() {
  return sets.find((set) => set.id === chooser.value) ?? sets[0];
}

function chosenKind() {
  return controls.querySelector("input[name=kind]:checked").value;
}

function show() {
  const wanted = plain(search.value.trim());
  const set = chosenSet(), kind = chosenKind();
  let shown = 0;
  for (const other of sets) other.hidden = other !== set;
  const questions = set.querySelectorAll("article");
  for (const question of questions) {
    const fits = (kind === "all" || question.dataset.kind === kind) && textOf(question).includes(wanted);
    question.hidden = !fits;
    shown += fits;
  }
  for (const option of controls.querySelectorAll("input[name=kind]")) {
    const number = option.value === "all" ? questions.length : set.querySelectorAll(`article[data-kind="${option.value}"]`).length;
    option.parentElement.querySelector(".number").textContent = number.toLocaleString("en");
  }
  const filters = [kind === "all" ? "" : controls.querySelector("input[name=kind]:checked").dataset.title, wanted ? `with “${search.value.trim()}”` : ""];
  count.textContent = [`${shown.toLocaleString("en")} of ${questions.length.toLocaleString("en")} questions`, ...filters.filter(Boolean)].join(", ");
}

function remember() {
  const kind = chosenKind();
  history.replaceState(null, "", `#${chosenSet().id}${kind === "all" ? "" : `-${kind}`}`);
}

function follow() {
  const asked = location.hash.slice(1);
  const set = sets.find((each) => asked === each.id) ?? sets.find((each) => asked.startsWith(`${each.id}-`));
  if (!set) return;
  chooser.value = set.id;
  const kind = asked.slice(set.id.length + 1) || "all";
  const option = [...controls.querySelectorAll("input[name=kind]")].find((each) => each.value === kind);
  if (option) option.checked = true;
  setTimeout(() => window.scrollTo(0, 0)); // the browser would go to the section, past the filters
}

function step(by) {
  const shown = [...chosenSet().querySelectorAll("article:not([hidden])")];
  const here = shown.indexOf(document.activeElement.closest("article"));
  const next = shown[here < 0 ? (by > 0 ? 0 : shown.length - 1) : here + by];
  if (next) {
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "start" });
  }
}

controls.hidden = false;
controls.addEventListener("input", () => { show(); remember(); });
controls.addEventListener("submit", (event) => event.preventDefault());
window.addEventListener("hashchange", () => { follow(); show(); });
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input[type=search], select")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (event.key === "/") { event.preventDefault(); search.focus(); }
  if (event.key === "j") step(1);
  if (event.key === "k") step(-1);
});
window.addEventListener("load", follow);
follow();
show();
