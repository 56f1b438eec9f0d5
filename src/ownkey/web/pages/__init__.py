"""One module a page: its handlers, named after the address, beside a template of the same name."""
