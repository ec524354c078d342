package usage

// What stands for an organization that was erased.
const (
	erasedPrefix = "erased-"
	erasedSite   = "erased"
)
