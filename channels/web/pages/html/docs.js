"use strict";
// Nothing that is typed here is kept or sent anywhere but to this host.
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
