// Draws a month: progression as chart and table, then weeks of days.

import { el } from "./dom.js";
import { LIFTS } from "./words.js";

const repetitions = (set) => `${set.repetitions}${set.amrap ? "+" : ""}`;

// The sets of a lift in a week; none if it is not trained.
const setsOf = (week, lift) =>
  week.days.flatMap((day) => day.lifts).find((main) => main.lift === lift)?.sets ?? [];

export function progression(month, words) {
  return [chart(month, words), el("div", { className: "scroll", tabIndex: 0, role: "region", ariaLabel: words.weights }, table(month, words))];
}

function chart(month, words) {
  const weeks = month.weeks.map((week) => {
    const bars = week.days[0].lifts[0].sets.map(({ percent }) => {
      const bar = el("li", {}, `${percent}`);
      bar.style.blockSize = `${percent}%`;
      return bar;
    });
    return el("li", {}, el("ol", { ariaLabel: weekTitle(week, words) }, bars), weekTitle(week, words));
  });
  return el("figure", {}, el("figcaption", { className: "hint" }, words.percents), el("ul", { className: "chart" }, weeks));
}

function weekTitle(week, words) {
  return words.week(week.week) + (week.deload ? `, ${words.deload}` : "");
}

function table(month, words) {
  const head = [words.lift, ...month.weeks.map((week) => weekTitle(week, words))];
  const rows = LIFTS.map((lift) => {
    const max = month.training_max ? ` (${words.trainingMax(month.training_max[lift])})` : "";
    const cells = month.weeks.map((week) =>
      el("td", {}, setsOf(week, lift).map((set) => `${set.kg}×${repetitions(set)}`).join("  ")),
    );
    return el("tr", {}, el("th", { scope: "row" }, words.lifts[lift] + max), cells);
  });
  return el(
    "table",
    { className: "progression" },
    el("caption", {}, words.weights),
    el("thead", {}, el("tr", {}, head.map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, rows),
  );
}

export function weeks(month, words) {
  return month.weeks.map((week) => {
    const days = el("div", { className: "days" }, week.days.map((one) => day(one, words)));
    days.style.setProperty("--days", month.days_per_week);
    return el("section", {}, el("h3", {}, weekTitle(week, words)), days);
  });
}

function day(one, words) {
  return el(
    "article",
    { className: "day" },
    el("h4", {}, words.day(one.day)),
    one.lifts.map((main) => lift(main, words)),
    el("ul", { ariaLabel: words.assistance }, one.assistance.map(exercise)),
  );
}

function lift(main, words) {
  const warmUps = main.warm_up.map((set) => row(set, words, words.warmUp, "warm-up"));
  const sets = main.sets.map((set, number) => row(set, words, words.set(number + 1), ""));
  const head = [words.sets, words.kg, "%", words.plates];
  return el(
    "table",
    {},
    el("caption", {}, el("strong", {}, words.lifts[main.lift])),
    el("thead", { className: "soft" }, el("tr", {}, head.map((name) => el("th", { scope: "col" }, name)))),
    el("tbody", {}, warmUps, sets),
  );
}

function row(set, words, name, className) {
  const plates = set.below_bar ? words.belowBar : set.plates.join("+") || words.emptyBar;
  return el(
    "tr",
    { className },
    el("th", { scope: "row" }, name),
    el("td", { className: "kg" }, `${set.kg}×${repetitions(set)}`),
    el("td", {}, `${set.percent}`),
    el("td", {}, plates),
  );
}

function exercise({ name, sets, repetitions: count, muscle_groups: muscles, equipment }) {
  const about = ` ${muscles.join(", ")} · ${equipment}`;
  return el("li", {}, `${name} ${sets}×${count}`, el("span", { className: "soft" }, about));
}
