"""What programs would need and do on hardware that is not at hand: `judgelm-plan`."""
