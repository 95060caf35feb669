"""Values only: one YAML file per player (gen/, detect/) and per preset (run/)."""
