"use strict";
// Input on this page is sent to this host only and never stored.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#rest",
  deepLinking: false,
  persistAuthorization: false,
  validatorUrl: null,
  queryConfigEnabled: false,
  tryItOutEnabled: false,
  defaultModelsExpandDepth: 0,
});
