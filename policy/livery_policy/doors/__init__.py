"""How the decision point is reached: AuthZEN for those who ask, HTTP for those who operate it. No decisions here."""
