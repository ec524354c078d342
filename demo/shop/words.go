package shop

// trade is what one category is made of.
type trade struct {
	slug, title, blurb string
	prefix             string // of the SKU
	low, high          int    // price range in cents
	nouns              []string
	hue                float64 // base hue of the pictures, degrees
}

// trades returns the departments of the shop, in the order of the menu.
func trades() []trade {
	return []trade{
		{"lamps", "Lamps", "Warm light for desks, shelves and late evenings.", "LMP", 2900, 18900, []string{"Table Lamp", "Desk Lamp", "Reading Lamp", "Bedside Lamp"}, 42},
		{"mugs", "Mugs", "Hand-thrown cups that keep the first coffee warm.", "MUG", 900, 3400, []string{"Mug", "Espresso Cup", "Tea Cup", "Camp Mug"}, 18},
		{"chairs", "Chairs", "Seats that are kind to backs and to floors.", "CHR", 7900, 48900, []string{"Chair", "Side Chair", "Dining Chair", "Stool"}, 28},
		{"plants", "Plants", "Green company in honest pots.", "PLT", 1200, 8900, []string{"Fern", "Fig", "Palm", "Aloe"}, 130},
		{"bags", "Bags", "Carry-alls that age well.", "BAG", 3500, 22900, []string{"Tote", "Satchel", "Weekender", "Shopper"}, 350},
		{"clocks", "Clocks", "Quiet movements, clear faces.", "CLK", 2400, 15900, []string{"Wall Clock", "Mantel Clock", "Kitchen Clock", "Station Clock"}, 205},
		{"notebooks", "Notebooks", "Paper that forgives every pen.", "NTB", 600, 3200, []string{"Notebook", "Journal", "Sketchbook", "Planner"}, 225},
		{"vases", "Vases", "For one stem or for an armful.", "VAS", 1800, 12900, []string{"Vase", "Bud Vase", "Carafe", "Amphora"}, 175},
		{"candles", "Candles", "Slow-burning, lightly scented.", "CND", 800, 4600, []string{"Candle", "Pillar Candle", "Travel Candle", "Beeswax Candle"}, 10},
		{"umbrellas", "Umbrellas", "Storm-tested ribs, cheerful canopies.", "UMB", 2200, 9900, []string{"Umbrella", "City Umbrella", "Walking Umbrella", "Parasol"}, 255},
		{"headphones", "Headphones", "Music, and a little peace.", "HDP", 4900, 34900, []string{"Headphones", "Studio Headphones", "Travel Headphones", "Home Headphones"}, 285},
		{"cushions", "Cushions", "Feather-filled and fully washable.", "CSH", 1500, 7900, []string{"Cushion", "Bolster", "Floor Cushion", "Seat Pad"}, 325},
	}
}

func places() []string {
	return []string{
		"Alder", "Ashby", "Bergen", "Birch", "Calder", "Cove", "Delft", "Dune", "Ember", "Fjord", "Fenwick", "Grove",
		"Harbour", "Hazel", "Isla", "Juniper", "Kelp", "Larch", "Linden", "Lund", "Marsh", "Mistral", "Nord", "Oslo",
		"Otter", "Pine", "Quarry", "Rowan", "Sable", "Skye", "Tarn", "Thistle", "Umber", "Vale", "Willow", "Yarrow",
	}
}

func finishes() []string {
	return []string{
		"Oat", "Slate", "Moss", "Clay", "Ink", "Sand", "Rust", "Sage", "Plum", "Smoke", "Honey", "Chalk", "Sea", "Rose",
	}
}

func materials() []string {
	return []string{
		"solid oak", "brushed brass", "recycled glass", "stoneware", "washed linen", "vegetable-tanned leather",
		"powder-coated steel", "reclaimed teak", "merino wool", "organic cotton", "cork", "bone china",
	}
}

func praises() []string {
	return []string{
		"made in small batches by people who sign their work",
		"designed to be repaired, not replaced",
		"drawn with one idea and made without fuss",
		"a quiet favourite of our own staff",
		"the kind of thing you hand on to a friend",
		"inspired by harbours, early ferries and long tables",
		"balanced in the hand and calm on the eye",
		"tested for years in our own homes",
	}
}

func cares() []string {
	return []string{
		"Wipe with a soft, dry cloth.",
		"Rinse by hand; it will outlast the dishwasher.",
		"Keep it out of direct sun for the richest colour.",
		"A drop of oil once a year is all it asks.",
		"Comes wrapped in paper, never in plastic.",
		"Spare parts are always in stock.",
	}
}
