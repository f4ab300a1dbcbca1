"""Reference pages and manual pages, made from the commands and the schema themselves: so they are right."""
