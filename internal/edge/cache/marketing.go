package cache

// marketing are parameters with which advertisers, newsletters and their scripts in the browser follow a visitor. That
// an origin makes another page of one is not known. Those by which affiliates are paid are not among them,
// as shops read them; nor are words that shops may use for themselves.
var marketing = [...]parameter{
	{"utm_", true}, // Urchin, Google Analytics, and most others
	{"gclid", false},
	{"gclsrc", false},
	{"gbraid", false},
	{"wbraid", false},
	{"dclid", false},
	{"gad_source", false},
	{"gad_campaignid", false}, // Google Ads
	{"_ga", false},
	{"_gl", false},
	{"_gac", false},
	{"srsltid", false}, // Google
	{"fbclid", false},
	{"fb_action_ids", false},
	{"fb_action_types", false},
	{"fb_source", false},
	{"fb_ref", false},
	{"igsh", false},
	{"igshid", false},  // Meta
	{"msclkid", false}, // Microsoft
	{"twclid", false},
	{"ttclid", false},
	{"li_fat_id", false},
	{"epik", false},
	{"sccid", false},
	{"ScCid", false},
	{"rdt_cid", false},
	{"qclid", false}, // X, TikTok, LinkedIn, Pinterest, Snapchat, Reddit, Quora
	{"yclid", false},
	{"ymclid", false},
	{"_openstat", false}, // Yandex
	{"s_kwcid", false},
	{"ef_id", false},
	{"mkt_tok", false}, // Adobe
	{"mc_cid", false},
	{"mc_eid", false}, // Mailchimp
	{"_hsenc", false},
	{"_hsmi", false},
	{"__hssc", false},
	{"__hstc", false},
	{"__hsfp", false},
	{"hsCtaTracking", false},
	{"hsa_", true}, // HubSpot
	{"_ke", false},
	{"_kx", false}, // Klaviyo
	{"vero_id", false},
	{"vero_conv", false},
	{"oly_anon_id", false},
	{"oly_enc_id", false},
	{"__s", false},
	{"wickedid", false},
	{"dm_i", false},
	{"_bta_tid", false},
	{"_bta_c", false},
	{"mtm_", true},
	{"pk_campaign", false},
	{"pk_kwd", false},
	{"pk_keyword", false},
	{"pk_source", false},
	{"pk_medium", false},
	{"pk_content", false},
	{"piwik_campaign", false},
	{"piwik_kwd", false},
	{"matomo_", true}, // Matomo
}
