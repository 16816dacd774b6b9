"""The graphs that a precision makes: half ones, and int8 in the form that each runtime takes."""
