"""The interactive viewer: state and logic apart from the window, so that they run without a screen."""
