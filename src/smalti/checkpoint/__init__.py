"""Files of trained models and folders of trainings."""
