"""The console: pages for operators, rendered here and made livelier by htmx. All of them work without a script too."""
