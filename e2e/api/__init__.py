"""An API server alone, and everything around it played: what the product does when the way to it is bad. No test lives here."""
