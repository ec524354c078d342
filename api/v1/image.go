package v1

// ImagePolicy makes pictures of other sizes and formats from those that origins have, for requests with
// the parameters width, height, fit, quality, format, dpr and preset.
type ImagePolicy struct {
	TypeMeta `json:",inline"`
	Metadata Metadata        `json:"metadata" schema:"required"`
	Spec     ImagePolicySpec `json:"spec"`
}

// ImagePolicySpec is what an ImagePolicy does. What can be asked for is a finite set, so that nobody can
// have pictures made without end.
type ImagePolicySpec struct {
	// Widths that can be asked for, in pixels. Absent means 64, 128, 256, 384, 512, 640, 828, 1080, 1280, 1600,
	// 1920 and 2560.
	Widths []int `json:"widths,omitempty" schema:"maxItems=64,min=1,max=4096"`
	// Heights that can be asked for, in pixels; absent means the same as for widths.
	Heights []int `json:"heights,omitempty" schema:"maxItems=64,min=1,max=4096"`
	// Qualities that can be asked for; absent means 50, 65, 80 and 90.
	Qualities []int `json:"qualities,omitempty" schema:"maxItems=16,min=1,max=100"`
	// Other says what becomes of a request for another size or quality, or with a parameter that cannot be
	// read: nearest takes the next larger allowed one (the largest for what is above all), and leaves out what
	// cannot be read; refuse answers 400.
	Other string `json:"other,omitempty" schema:"enum=nearest|refuse,default=nearest"`
	// Formats that auto may choose where a client accepts them, beside the original's; of those that it
	// likes equally the first is taken. Absent means webp. avif costs several times as much work.
	Formats []string `json:"formats,omitempty" schema:"maxItems=2,enum=webp|avif"`
	// Default is what holds for what a request does not say.
	Default ImageForm `json:"default,omitempty"`
	// Presets are forms with names, for the parameter preset.
	Presets []ImagePreset `json:"presets,omitempty" schema:"maxItems=64"`
	// PresetsOnly leaves preset and dpr as the only parameters.
	PresetsOnly bool `json:"presetsOnly,omitempty"`
	// MaxSource is the largest original, in bytes; larger ones are sent as they are.
	MaxSource Size `json:"maxSource,omitempty" schema:"default=20MiB,min=1KiB,max=64MiB"`
	// MaxPixels is the most pixels of an original; those with more are sent as they are.
	MaxPixels int `json:"maxPixels,omitempty" schema:"default=25000000,min=1,max=100000000"`
	// Timeout bounds the wait for a worker and the work; what takes longer is sent as it is.
	Timeout Duration `json:"timeout,omitempty" schema:"default=5s,min=100ms,max=30s"`
}

// ImageForm is how a picture is to be. What is not given is left to the original, or to the policy's default.
type ImageForm struct {
	// Width in pixels; 0 leaves it to the height, or to the original.
	Width int `json:"width,omitempty" schema:"min=0,max=4096"`
	// Height in pixels; 0 leaves it to the width, or to the original.
	Height int `json:"height,omitempty" schema:"min=0,max=4096"`
	// Fit says what becomes of another aspect ratio: scale-down fits it in and never enlarges, contain fits it
	// in, cover fills all and cuts off what is over, crop is a cover that never enlarges. Absent means scale-down.
	Fit string `json:"fit,omitempty" schema:"enum=scale-down|contain|cover|crop"`
	// Quality from 1 to 100; 0 means 80. A lossless format has none.
	Quality int `json:"quality,omitempty" schema:"min=0,max=100"`
	// Format is auto (the best that the client accepts), original, or one of the formats for everybody. Absent
	// means auto.
	Format string `json:"format,omitempty" schema:"enum=auto|original|avif|webp|jpeg|png"`
}

// ImagePreset is a form with a name.
type ImagePreset struct {
	// Name is what the parameter preset says.
	Name      string `json:"name" schema:"required,format=name,maxLength=63"`
	ImageForm `json:",inline"`
}
