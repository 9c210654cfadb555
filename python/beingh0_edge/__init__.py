"""Run Being-H0 models on the robot: a picture and a sentence in, hand motion out."""
