"use strict";

// Swagger UI is dark where its root says so; the browser knows what the reader prefers.
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

SwaggerUIBundle({
  url: document.getElementById("document").dataset.url,
  dom_id: "#document",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  validatorUrl: null,
});
