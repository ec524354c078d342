package record

// SpillWords says in words why the request went to the tier where it is.
func (e *Explanation) SpillWords() string {
	switch e.Spill {
	case "stayed":
		return "the visitor was sent to " + e.Tier + " in the last 30 s, and stays there"
	case "sticky":
		return "the visitor's basket is in " + e.Tier
	}
	// The tiers that it went past for this reason, since its last try.
	from := ""
	for _, d := range e.Decisions {
		switch {
		case d.Stage != "balance":
		case d.Code == "retry":
			from = ""
		case d.Code == "spill:"+e.Spill && from == "":
			from = d.Detail
		}
	}
	if from == "" {
		from = "the tier before"
	}
	why := ""
	switch e.Spill {
	case "soft":
		why = from + " was at its soft mark, from where on new visitors without a basket go on"
	case "hard":
		why = from + " was full for " + visitorWords(e.Visitor)
	case "unhealthy":
		why = "no origin of " + from + " was well"
	case "tried":
		why = "every origin of " + from + " was tried for this request"
	default:
		return "not known to this version"
	}
	return why + ", so that " + e.Tier + " got it"
}

// visitorWords says who is meant by a class.
func visitorWords(class string) string {
	switch class {
	case "protected":
		return "visitors with a basket too"
	case "known":
		return "a known visitor without a basket"
	}
	return "a visitor without a basket"
}

// FullWords says what became of a request for which no tier had room.
func (e *Explanation) FullWords() string {
	switch e.Full {
	case "waited":
		return "the visitor has a basket, so it waited for the next place that came free"
	case "stale":
		return "a stored answer stood in, as its cache policy or the answer itself allows"
	case "room":
		return "the waiting room answered"
	case "page":
		return "nothing stored stood in, so the visitor got a page that says when to come back"
	}
	return "not known to this version"
}
