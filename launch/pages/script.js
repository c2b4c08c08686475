// The one script of the pages. It makes no markup out of text: what others wrote is only ever textContent.
"use strict";

const $ = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

const typing = (target) => target.closest("input:not([type=radio]):not([type=checkbox]), textarea, select") !== null;

// "/" goes to the search of the page; on a narrow screen lists of steps begin closed.
document.addEventListener("keydown", (event) => {
  const search = $("[data-key='/']");
  if (event.key === "/" && search && !typing(event.target) && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    search.focus();
    search.select();
  }
});
if (matchMedia("(max-width: 60rem)").matches) all("details.steps").forEach((part) => part.removeAttribute("open"));

// A run that is being made: its progress every three seconds, its curves every half minute.
const live = $("[data-live]");
if (live) {
  const look = async () => {
    try {
      const answer = await fetch(live.dataset.live, { headers: { accept: "application/json" } });
      if (!answer.ok) return;
      for (const stage of (await answer.json()).stages) {
        const card = $(`[data-stage="${CSS.escape(stage.name)}"]`);
        const state = card && $("[data-state]", card);
        if (!state || !state.classList.contains(stage.state)) return location.reload();
        const told = $("[data-told]", card), done = $("[data-done]", card), bar = $("progress", card);
        if (told && stage.told) told.textContent = stage.told;
        if (done && stage.total) done.textContent = `${stage.done.toLocaleString("en")} / ${stage.total.toLocaleString("en")}`;
        if (bar && stage.state !== "finished") bar.value = stage.share || 0;
      }
    } catch { /* the server is gone; it may come back */ }
  };
  setInterval(look, 3000);
  setInterval(() => document.visibilityState === "visible" && location.reload(), 30000);
}
