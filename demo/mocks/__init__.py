"""The services that the product asks, played over real HTTP: Dify, OpenAI, custom, Serper, the auth API."""
