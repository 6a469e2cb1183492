// The page: a profile in, a month out, and the next month after it.

import { Problem, address, ask, session } from "./api.js";
import { el, find, findAll } from "./dom.js";
import * as plan from "./plan.js";
import { GENDERS, LANGUAGES, LIFTS } from "./words.js";

const MONTH = "gen/routine/month";
const NEXT = "gen/routine/next";
const STORE = "routine";
const NO_KEY = 401;
const EPLEY_REPETITIONS = 30; // 1RM = weight × (1 + repetitions / 30)
const MOST_REPETITIONS = 12; // with more, the formula estimates too much

const form = find("#profile");
let language = "ko";
let shown = null; // {request, month}: what the plan on the page is of
let busy = false;

const words = () => LANGUAGES[language];

// ------------------------------------------------------------------ the form

function choices(select, texts, values) {
  const chosen = select.value;
  select.replaceChildren(...texts.map((text, n) => el("option", { value: values[n] }, text)));
  if (chosen) select.value = chosen;
}

function drawForm() {
  document.documentElement.lang = language;
  document.title = words().title;
  for (const place of findAll("[data-word]")) place.textContent = words()[place.dataset.word];
  for (const select of findAll("[data-choices]")) {
    const texts = words()[select.dataset.choices];
    const values = { genders: GENDERS, bases: ["1rm", "tm"] }[select.dataset.choices];
    choices(select, texts, values ?? texts.map((_, n) => n + 1));
  }
  for (const place of findAll("[data-lift]")) place.textContent = words().lifts[place.dataset.lift];
  find("#language").lang = language === "ko" ? "en" : "ko";
}

function buildLifts() {
  for (const lift of LIFTS) {
    const counts = Array.from({ length: MOST_REPETITIONS }, (_, n) => el("option", {}, `${n + 1}`));
    const kg = el("input", { name: `rm_weight.${lift}`, type: "number", inputMode: "decimal", step: "any" });
    const row = el(
      "div",
      { className: "maximum", role: "group" },
      el("span", { id: `lift-${lift}`, "data-lift": lift }),
      el("label", {}, el("span", { "data-word": "weight" }), kg),
      el("label", {}, el("span", { "data-word": "repetitions" }), el("select", { name: `repetitions.${lift}` }, counts)),
      el("output", { name: `estimate.${lift}` }),
    );
    row.setAttribute("aria-labelledby", `lift-${lift}`);
    find("#maxima").append(row);
    const reached = el("input", { name: `repetitions.${lift}`, type: "number", inputMode: "numeric" });
    find("#reached").append(el("label", {}, el("span", { "data-lift": lift }), reached));
  }
}

const number = (text) => (text.trim() === "" ? undefined : Number(text)); // undefined is not sent

function maximum(lift) {
  const kg = number(form[`rm_weight.${lift}`].value);
  const count = Number(form[`repetitions.${lift}`].value);
  if (kg === undefined || count === 1) return kg;
  return Math.round(10 * kg * (1 + count / EPLEY_REPETITIONS)) / 10;
}

// "20x2, 5" is two pairs of 20 kg and one of 5; nothing is as many as needed.
function plates() {
  const pairs = form.plates.value.split(/[,\s]+/).filter(Boolean);
  const read = ([kg, count = "1"]) => ({ kg: Number(kg), pairs: Number(count) });
  return pairs.length ? pairs.map((text) => read(text.split(/[x×*]/i))) : undefined;
}

function drawEstimates() {
  for (const lift of LIFTS) {
    const isEstimate = form[`repetitions.${lift}`].value !== "1" && maximum(lift) !== undefined;
    form[`estimate.${lift}`].value = isEstimate ? `1RM ${maximum(lift)} kg` : "";
  }
}

function asked() {
  return {
    experience: Number(form.experience.value),
    gender: form.gender.value,
    purpose: Number(form.purpose.value),
    rm_weight: Object.fromEntries(LIFTS.map((lift) => [lift, maximum(lift)])),
    days_per_week: Number(form.days_per_week.value),
    basis: form.basis.value,
    bar: number(form.bar.value),
    plate_step: Number(form.plate_step.value),
    plates: plates(),
  };
}

// What was typed stays in this browser.
function remember() {
  const fields = Object.fromEntries(new FormData(form));
  try {
    localStorage.setItem(STORE, JSON.stringify({ language, fields }));
  } catch {
    // storage is switched off
  }
}

function recall() {
  try {
    const { language: spoken, fields } = JSON.parse(localStorage.getItem(STORE)) ?? {};
    if (spoken in LANGUAGES) language = spoken;
    return fields ?? {};
  } catch {
    return {};
  }
}

// The key only until the tab is closed. Its field has no name, so that it is not remembered above.
function rememberKey() {
  session.key = find("#key input").value.trim();
  try {
    sessionStorage.setItem(STORE, session.key);
  } catch {
    // storage is switched off
  }
}

function recallKey() {
  try {
    session.key = sessionStorage.getItem(STORE) ?? "";
  } catch {
    return;
  }
  find("#key input").value = session.key;
  find("#key").hidden = !session.key;
}

// ------------------------------------------------------------------ answers

function clearProblems() {
  find("#problem").hidden = true;
  for (const error of findAll(".error")) error.remove();
  for (const input of findAll("[aria-invalid]")) {
    input.removeAttribute("aria-invalid");
    input.removeAttribute("aria-describedby");
  }
}

function showProblem(problem, place) {
  if (problem.status === NO_KEY) {
    find("#key").hidden = false;
    find("#key input").focus();
  }
  const name = problem.parameter ?? "";
  const input = place.elements[name] ?? place.elements[name.split(".")[0]]; // one plate of several
  if (input) {
    const id = "error-of-field";
    const text = el("p", { id, className: "error", role: "alert" }, words().check + problem.message);
    (input.closest(".maximum") ?? input.parentElement).append(text);
    input.closest("details")?.setAttribute("open", "");
    input.setAttribute("aria-invalid", "true");
    input.setAttribute("aria-describedby", id);
    input.focus();
    return;
  }
  const banner = find("#problem");
  banner.textContent = summary(problem);
  banner.hidden = false;
}

function summary({ status, message, retryAfter }) {
  if (status === 0) return words().unreachable;
  if (status === NO_KEY) return words().needsKey + message;
  if (retryAfter) return words().busy(retryAfter);
  return words().failed + message;
}

// Runs one thing at a time; problems are shown at the fields of `place`.
async function act(button, place, work) {
  if (busy) return;
  busy = true;
  clearProblems();
  button.setAttribute("aria-disabled", "true");
  find("#status").textContent = words().working;
  try {
    await work();
  } catch (error) {
    find("#status").textContent = "";
    if (!(error instanceof Problem)) throw error;
    showProblem(error, place);
  } finally {
    busy = false;
    button.removeAttribute("aria-disabled");
  }
}

async function makePlan() {
  const request = asked();
  const start = performance.now();
  const response = await ask(MONTH, request);
  const month = await response.json();
  const took = Math.round(performance.now() - start);
  const count = (name) => response.headers.get(name);
  shown = { request, month };
  drawPlan();
  find("#status").textContent = words().took(took, count("x-forward-passes"), count("x-completion-tokens"));
  find("#plan-title").focus();
}

function drawPlan() {
  if (!shown) return;
  const { month } = shown;
  find("#notes").replaceChildren(...month.notes.map((note) => el("li", {}, note)));
  find("#progression").replaceChildren(...plan.progression(month, words()));
  find("#weeks").replaceChildren(...plan.weeks(month, words()));
  find("#snippet").hidden = true;
  find("#plan").hidden = find("#next").hidden = false;
}

// The request whose answer is on the page, whatever the form says by now.
const complete = () => ({ ...shown.request, rates: shown.month.rates });

async function makeNext() {
  const { days_per_week: _, ...cycle } = complete();
  const typed = LIFTS.map((lift) => [lift, number(find("#next")[`repetitions.${lift}`].value)]);
  const body = { ...cycle, repetitions: Object.fromEntries(typed) };
  const { profile, lifts } = await (await ask(NEXT, body)).json();
  const changes = LIFTS.map((lift) => {
    const { before, after, change } = lifts[lift];
    return el("li", {}, `${words().lifts[lift]}: ${before} → ${after} kg (${words().changes[change]})`);
  });
  find("#changes").replaceChildren(...changes);
  for (const lift of LIFTS) {
    form[`rm_weight.${lift}`].value = profile.rm_weight[lift];
    form[`repetitions.${lift}`].value = "1";
    find("#next")[`repetitions.${lift}`].value = "";
  }
  drawEstimates();
  remember();
  await makePlan();
}

async function downloadCalendar() {
  const start = find("#calendar input").value;
  const response = await ask(`${MONTH}?start=${start}`, complete(), "text/calendar");
  const link = el("a", { href: URL.createObjectURL(await response.blob()), download: "routine.ics" });
  link.click();
  find("#status").textContent = "";
}

// Shows the text as well: there is no clipboard on a page that came without TLS.
async function copy(text) {
  const snippet = find("#snippet");
  snippet.textContent = text;
  snippet.hidden = false;
  await navigator.clipboard?.writeText(text);
  find("#status").textContent = navigator.clipboard ? words().copied : "";
}

// The key itself is not copied.
const asCurl = () =>
  `curl ${address(MONTH)} -H 'content-type: application/json' ` +
  (session.key && `-H "authorization: Bearer $ROUTINE531_KEY" `) +
  `-d '${JSON.stringify(complete())}'`;
const asPython = () =>
  (session.key && "import os\n\n") +
  `import httpx\n\nrequest = ${JSON.stringify(complete())}\n` +
  (session.key && `headers = {"authorization": f"Bearer {os.environ['ROUTINE531_KEY']}"}\n`) +
  `answer = httpx.post("${address(MONTH)}", json=request, ${session.key && "headers=headers, "}timeout=60)\n` +
  "print(answer.json())\n";

// ------------------------------------------------------------------ start

function on(selector, event, listener) {
  find(selector).addEventListener(event, listener);
}

function onSubmit(selector, place, work) {
  on(selector, "submit", (event) => {
    event.preventDefault();
    act(event.submitter ?? find(`${selector} button`), place, work);
  });
}

function start() {
  buildLifts();
  const fields = recall();
  recallKey();
  drawForm();
  for (const [name, value] of Object.entries(fields)) if (form[name]) form[name].value = value;
  drawEstimates();
  on("#profile", "input", () => (drawEstimates(), remember()));
  on("#key", "input", rememberKey);
  onSubmit("#profile", form, makePlan);
  onSubmit("#next", find("#next"), makeNext);
  onSubmit("#calendar", find("#calendar"), downloadCalendar);
  on("#print", "click", () => window.print());
  on("#curl", "click", () => copy(asCurl()));
  on("#python", "click", () => copy(asPython()));
  on("#language", "click", () => {
    language = language === "ko" ? "en" : "ko";
    find("#status").textContent = "";
    remember();
    drawForm();
    drawPlan();
  });
}

start();
