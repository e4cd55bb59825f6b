"""What main.py, generate.py, train.py, model.py, data.py and settings.py build on; imports none."""
