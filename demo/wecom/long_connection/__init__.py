"""WeCom's side of the long connection: a WebSocket server that bots connect to, and the people who talk to them."""
