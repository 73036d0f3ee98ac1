package pci

import (
	"encoding/json"
	"fmt"
)

// State is all that a guest can see of a Bus. The zero State is the state after
// power-on: BARs at their initial addresses, decoding off.
type State struct {
	Address   uint32          `json:"address,omitempty"` // CONFIG_ADDRESS
	Functions []FunctionState `json:"functions,omitempty"`
}

// FunctionState is the state of one function. Its zero value is the state after
// power-on.
type FunctionState struct {
	Config  []byte   `json:"config,omitempty"`  // 256 bytes
	Mapped  uint8    `json:"mapped,omitempty"`  // which BARs have the addresses that they ask for
	INTx    bool     `json:"intx,omitempty"`    // what the device has set
	Table   []Entry  `json:"table,omitempty"`   // MSI-X
	Pending []uint16 `json:"pending,omitempty"` // vectors
}

// Save returns the State as JSON. No vCPU or device may run.
func (b *Bus) Save() ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := State{Address: b.address}
	for _, f := range b.functions {
		fs := FunctionState{Config: append([]byte(nil), f.config[:]...), Mapped: f.mapped(), INTx: f.intx.pending()}
		fs.Table, fs.Pending = f.msix.save()
		s.Functions = append(s.Functions, fs)
	}
	return json.Marshal(s)
}

// Load sets the State, which must be of a bus with the same devices; otherwise it
// returns an error and changes nothing. No vCPU or device may run. BARs that were
// mapped are mapped first, so that they keep their precedence. Moved tells the
// devices of all changes. Interrupts that are pending and may be sent are sent.
func (b *Bus) Load(state []byte) error {
	var s State
	if err := json.Unmarshal(state, &s); err != nil {
		return fmt.Errorf("pci: state: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.check(s); err != nil {
		return fmt.Errorf("pci: state: %w", err)
	}
	b.load(s)
	return nil
}

// Reset sets the state after power-on. No vCPU or device may run.
func (b *Bus) Reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.load(State{})
}

func (b *Bus) check(s State) error {
	if s.Address&^uint32(addressMask) != 0 {
		return fmt.Errorf("CONFIG_ADDRESS %#x", s.Address)
	}
	if len(s.Functions) != 0 && len(s.Functions) != len(b.functions) {
		return fmt.Errorf("%d functions, here are %d", len(s.Functions), len(b.functions))
	}
	for i, fs := range s.Functions {
		if err := b.functions[i].check(fs); err != nil {
			return fmt.Errorf("slot %d: %w", i, err)
		}
	}
	return nil
}

// check compares all bits that a guest cannot change with their values here:
// identity, BARs, capabilities.
func (f *Function) check(s FunctionState) error {
	if n := len(s.Config); n != 0 && n != configSize {
		return fmt.Errorf("%d bytes of configuration space", n)
	}
	for i, v := range s.Config {
		if (v^f.initial[i])&^(f.writable[i]|f.clears[i]) != 0 {
			return fmt.Errorf("configuration space has %#02x at %#02x, here is %#02x: another device", v, i, f.initial[i])
		}
	}
	if n := len(s.Table); n != 0 && n != len(f.msix.entries) {
		return fmt.Errorf("%d MSI-X vectors, here are %d", n, len(f.msix.entries))
	}
	for i, e := range s.Table {
		if e.Control&^vectorMask != 0 || e.Address&addressUnused != 0 {
			return fmt.Errorf("MSI-X entry %d has reserved bits", i)
		}
	}
	for _, v := range s.Pending {
		if int(v) >= len(f.msix.entries) {
			return fmt.Errorf("vector %d of %d is pending", v, len(f.msix.entries))
		}
	}
	return nil
}

func (b *Bus) load(s State) {
	if len(s.Functions) == 0 {
		s.Functions = make([]FunctionState, len(b.functions))
	}
	for _, f := range b.functions {
		for i := range f.bars {
			b.unmap(f, i)
		}
	}
	b.address = s.Address
	for i, f := range b.functions {
		f.power()
		copy(f.config[:], s.Functions[i].Config)
		b.want(f)
	}
	for i, f := range b.functions {
		b.claim(f, s.Functions[i].Mapped)
	}
	b.claimAll()
	for i, f := range b.functions {
		fs := &s.Functions[i]
		f.msix.load(fs.Table, fs.Pending)
		f.intx.Set(false) // while apply connects the pin or not
		b.apply(f)
		f.intx.Set(fs.INTx)
	}
}

func (m *MSIX) save() (table []Entry, set []uint16) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.entries {
		table = append(table, m.entries[i].Entry)
		if m.entries[i].state.Load()&pending != 0 {
			set = append(set, uint16(i))
		}
	}
	return table, set
}

// load leaves all vectors masked by the function; setControl unmasks them.
func (m *MSIX) load(table []Entry, set []uint16) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open = false
	for i := range m.entries {
		e := &m.entries[i]
		e.usable = false
		e.Entry = Entry{Control: vectorMask}
		if len(table) != 0 {
			e.Entry = table[i]
		}
		e.state.Store(0)
	}
	for _, v := range set {
		m.entries[v].state.Store(pending)
	}
}
