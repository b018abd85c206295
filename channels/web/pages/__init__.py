"""The pages for people and developers, each one document without outside parts; their sources are in `html/`."""
