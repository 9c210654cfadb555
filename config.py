# Auto-generated config file
write_log = True
velocity_warning = True
