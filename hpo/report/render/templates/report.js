"use strict";
(() => {
  const { specs, texts } = JSON.parse(document.getElementById("figures").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const config = { responsive: true, displaylogo: false, displayModeBar: false, doubleClick: "reset" };

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name.slice(1)).trim();
  const themed = (value, key) => {
    if (Array.isArray(value)) return value.map((item) => themed(item, key));
    if (value !== null && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, themed(v, k)]));
    if (typeof value !== "string") return value;
    if (value[0] === "~") return texts[value.slice(1)];
    return value[0] === "@" && /color(scale)?$/.test(key) ? colour(value) : value;
  };
  const draw = (key) => {
    const place = document.getElementById("figure-" + key);
    const spec = themed(specs[key], "");
    return place === null ? null : Plotly.react(place, spec.data, spec.layout, config);
  };
  const drawAll = () => Object.keys(specs).forEach(draw);

  drawAll();
  dark.addEventListener("change", drawAll);
  // Paper is white, narrower than most windows, and cannot be unfolded.
  const folded = () => document.querySelectorAll("details:not([open])");
  let opened = [];
  addEventListener("beforeprint", () => {
    document.documentElement.classList.add("paper");
    opened = [...folded()];
    opened.forEach((details) => (details.open = true));
    drawAll();
    Object.keys(specs).forEach((key) => Plotly.Plots.resize(document.getElementById("figure-" + key)));
  });
  addEventListener("afterprint", () => {
    document.documentElement.classList.remove("paper");
    opened.forEach((details) => (details.open = false));
    drawAll();
  });
  document.querySelectorAll("button[data-copies]").forEach((button) => {
    if (!navigator.clipboard) return;
    button.hidden = false;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.previousElementSibling.textContent);
      button.textContent = "copied";
      setTimeout(() => (button.textContent = "copy"), 1500);
    });
  });
})();
