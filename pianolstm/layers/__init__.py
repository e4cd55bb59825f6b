"""The layers of the model, from the LSTM to the output heads."""
