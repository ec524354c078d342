package purge

// Bounds of the tags of one answer.
const (
	MaxTags     = 256
	MaxTagBytes = 16 << 10
)

// Tags collects the tags of an answer: each once, in lower case, one after the other with a line feed
// behind. The zero value is ready.
type Tags struct {
	text []byte
	n    int
	bad  bool
}

// AddCommas adds the tags of a Cache-Tag line: a list with commas; spaces around a tag do not count.
func (t *Tags) AddCommas(line []byte) { t.split(line, ',') }

// AddSpaces adds the tags of a Surrogate-Key line: a list with spaces.
func (t *Tags) AddSpaces(line []byte) { t.split(line, ' ') }

func (t *Tags) split(line []byte, sep byte) {
	for i := 0; i < len(line); {
		end := i
		for end < len(line) && line[end] != sep && (sep != ' ' || line[end] != '\t') {
			end++
		}
		first, last := i, end
		for first < last && (line[first] == ' ' || line[first] == '\t') {
			first++
		}
		for last > first && (line[last-1] == ' ' || line[last-1] == '\t') {
			last--
		}
		if first < last {
			t.Add(line[first:last])
		}
		i = end + 1
	}
}

// Add adds one tag.
func (t *Tags) Add(tag []byte) {
	if !GoodTag(tag) {
		t.bad = true
		return
	}
	at := len(t.text)
	for _, c := range tag {
		t.text = append(t.text, lower(c))
	}
	t.text = append(t.text, '\n')
	for name := range Names(t.text[:at]) {
		if string(name) == string(t.text[at:len(t.text)-1]) {
			t.text = t.text[:at]
			return
		}
	}
	if t.n++; t.n > MaxTags || len(t.text) > MaxTagBytes {
		t.text, t.bad = t.text[:at], true
		t.n--
	}
}

// Text is what was collected; Names reads it.
func (t *Tags) Text() []byte { return t.text }

// Whole is false when a tag was left out: one that is too long or holds what no tag has, or one too
// many. A purge of it could not be obeyed.
func (t *Tags) Whole() bool { return !t.bad }

// Names yields the tags of a Text.
func Names(text []byte) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for i, start := 0, 0; i < len(text); i++ {
			if text[i] == '\n' {
				if !yield(text[start:i]) {
					return
				}
				start = i + 1
			}
		}
	}
}

// Fold is a tag as it is compared: in lower case.
func Fold(tag string) string {
	b := []byte(tag)
	for i := range b {
		b[i] = lower(b[i])
	}
	return string(b)
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c | 0x20
	}
	return c
}
