(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const places = [...document.querySelectorAll("[data-figure]")];
  const dark = matchMedia("(prefers-color-scheme: dark)");

  // The records name colours by custom property, so a change of scheme needs new colours only.
  const colour = (value) =>
    value.startsWith("--") ? getComputedStyle(document.documentElement).getPropertyValue(value).trim() : value;
  const coloured = (value, key) => {
    if (key === "color" && typeof value === "string") return colour(value);
    if (Array.isArray(value)) return value.map((item) => coloured(item, ""));
    if (value && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, coloured(item, name)]));
    return value;
  };
  const axis = (own) => ({
    automargin: true, zeroline: false, separatethousands: true, ticklabelstandoff: 4, gridcolor: colour("--rule"),
    fixedrange: true, ...own,
    title: { ...own.title, font: { size: 12.5, color: colour("--muted") }, standoff: 8 },
  });
  function draw(column) {
    // What is folded has no width yet, and is drawn when it opens.
    for (const place of places.filter((one) => !one.closest("details:not([open])"))) {
      const alone = place.closest(".plots").childElementCount === 1;
      const width = column && (alone ? 2 * column : column);
      const { data, layout } = coloured(figures[place.dataset.figure], "");
      Plotly.react(place, data, {
        ...layout,
        width,
        xaxis: axis(layout.xaxis),
        yaxis: axis(layout.yaxis),
        margin: { l: 44, r: 16, t: 10, b: 40 },
        font: { family: "system-ui, sans-serif", size: 12.5, color: colour("--text") },
        hoverlabel: { bgcolor: colour("--soft"), bordercolor: colour("--rule"), font: { color: colour("--text") } },
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        showlegend: false,
        bargap: 0.35,
      }, { displayModeBar: false, responsive: true });
    }
  }
  draw();
  for (const folded of document.querySelectorAll("details:has([data-figure])"))
    folded.addEventListener("toggle", () => folded.open && draw());
  dark.addEventListener("change", () => draw());
  // Paper is white whatever the screen is, and has two columns of figures, or one that is alone.
  addEventListener("beforeprint", () => { document.documentElement.classList.add("paper"); draw(330); });
  addEventListener("afterprint", () => { document.documentElement.classList.remove("paper"); draw(); });
})();
