// Sets the chosen theme before the first paint. A classic script on purpose: modules run too late.
"use strict";
{
  let theme = null;
  try {
    theme = localStorage.getItem("convene.theme");
  } catch {
    // Without storage the system's preference holds.
  }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
}
