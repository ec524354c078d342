package http2

import "encoding/binary"

// The settings that are known here (RFC 9113 section 6.5.2, RFC 8441, RFC 9218).
const (
	settingTableSize       = 0x1
	settingEnablePush      = 0x2
	settingMaxStreams      = 0x3
	settingInitialWindow   = 0x4
	settingMaxFrame        = 0x5
	settingMaxHeaderList   = 0x6
	settingConnectProtocol = 0x8
	settingNoPriorities    = 0x9
)

// setting is one line of a SETTINGS frame.
type setting struct {
	id    uint16
	value uint32
}

// settings are what one side has asked of the other.
type settings struct {
	tableSize       uint32 // of its HPACK decoder
	maxStreams      uint32
	initialWindow   uint32
	maxFrame        uint32
	maxHeaderList   uint32 // 0 when nothing was said
	connectProtocol bool
	noPriorities    bool
}

// defaultSettings hold until a SETTINGS frame has come.
func defaultSettings() settings {
	return settings{tableSize: 4096, maxStreams: 1<<32 - 1, initialWindow: initialWindow, maxFrame: minMaxFrame}
}

// apply takes over the payload of a SETTINGS frame, line by line. A fault ends the connection.
// The caller moves the windows of all streams by the change of initialWindow.
func (s *settings) apply(payload []byte) *fault {
	for ; len(payload) >= 6; payload = payload[6:] {
		v := binary.BigEndian.Uint32(payload[2:])
		switch binary.BigEndian.Uint16(payload) {
		case settingTableSize:
			s.tableSize = v
		case settingEnablePush:
			if v > 1 {
				return faultEnablePush
			}
		case settingMaxStreams:
			s.maxStreams = v
		case settingInitialWindow:
			if v > maxWindow {
				return faultWindowSize
			}
			s.initialWindow = v
		case settingMaxFrame:
			if v < minMaxFrame || v > maxMaxFrame {
				return faultMaxFrame
			}
			s.maxFrame = v
		case settingMaxHeaderList:
			s.maxHeaderList = v
		case settingConnectProtocol:
			if v > 1 || s.connectProtocol && v == 0 {
				return faultConnectProto
			}
			s.connectProtocol = v == 1
		case settingNoPriorities:
			if v > 1 {
				return faultNoPriorities
			}
			s.noPriorities = v == 1
		}
	}
	return nil
}

// appendSettings appends a SETTINGS frame.
func appendSettings(b []byte, list ...setting) []byte {
	b = appendHead(b, 6*len(list), typeSettings, 0, 0)
	for _, s := range list {
		b = binary.BigEndian.AppendUint16(b, s.id)
		b = binary.BigEndian.AppendUint32(b, s.value)
	}
	return b
}

// appendSettingsAck appends the answer to a SETTINGS frame.
func appendSettingsAck(b []byte) []byte { return appendHead(b, 0, typeSettings, flagAck, 0) }
