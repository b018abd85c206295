// The page for developers: Swagger UI in the page's theme, with the key that was entered on any page. What is typed into
// Swagger UI is sent to this host only and never stored.

function followTheme() {
  const root = document.documentElement;
  root.classList.toggle("dark-mode", root.dataset.theme === "dark");
}

/** Send the key with the requests that are tried; a forgotten one is not sent any more. */
function useKey(key) {
  if (key) swagger.preauthorizeApiKey("apiKey", key);
  else swagger.authActions.logout(["apiKey"]);
}

const mend = mendSwagger(byId("rest"));

function speakLanguage() {
  relabel();
  mend();
}

preferences.on("locale", speakLanguage);
preferences.on("theme", followTheme);
speakLanguage();
followTheme();
const swagger = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#rest",
  deepLinking: false,
  persistAuthorization: false,
  validatorUrl: null,
  queryConfigEnabled: false,
  tryItOutEnabled: false,
  defaultModelsExpandDepth: 0,
  // Swagger UI fails to log out where nobody has logged in.
  onComplete: () => preferences.key && useKey(preferences.key),
});
preferences.on("key", useKey);
