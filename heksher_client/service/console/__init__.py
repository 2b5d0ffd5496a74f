"""The console: HTML pages for operators, enhanced by htmx. All of them also work without scripts."""
