"""Arrays to matplotlib figures; nothing here saves one."""
