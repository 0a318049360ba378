# frozen_string_literal: true

require 'strscan'
require 'fluent/plugin/bridge/messages'

module Fluent
  module Plugin
    module Bridge
      # Takes the payloads out of packed events without decoding them: for the formatter single_value
      # a payload stands in the event as it is to be sent, and decoding would make five objects an event.
      #
      # An event is [time, {payload field => text}], with a message key [time, {payload field => text,
      # key field => text}] in any order. Source of the format: MessagePack's spec.md; of the time's forms:
      # Fluentd's Forward protocol specification, EventTime Ext Format.
      class PayloadScanner
        # EventTime (as fixext 8 or ext 8), 32- and 64-bit integers, double.
        TIME = '(?:\xd7\x00.{8}|\xce.{4}|\xcf.{8}|\xcb.{8}|\xc7\x08\x00.{8})'
        # Messages that are handed over at once.
        BATCH = 10_000
        UNASSIGNED = 0xffffffff # -1 in the 32 bits of a partition
        private_constant :TIME, :BATCH, :UNASSIGNED

        # @param payload_field [String]
        # @param key_field [String, nil]
        def initialize(payload_field, key_field = nil)
          payload = Regexp.escape(packed(payload_field))
          key = key_field && Regexp.escape(packed(key_field))
          @payload_only = binary("\\x92#{TIME}\\x81#{payload}")
          @payload_first = [binary("\\x92#{TIME}\\x82#{payload}"), binary(key)] if key
          @key_first = [binary("\\x92#{TIME}\\x82#{key}"), binary(payload)] if key
        end

        # Yields messages, numbered by their events, while events have that shape.
        #
        # @param entries [String] packed events
        # @yieldparam messages [Messages] good inside of the block
        # @return [Array(Integer, Integer)] where in bytes, and at which event, the first begins that has another shape
        def scan(entries)
          entries = entries.b unless entries.encoding == Encoding::BINARY
          @entries = entries
          @scanner = StringScanner.new(entries)
          memory = FFI::MemoryPointer.new(:char, entries.bytesize + 1).put_bytes(0, entries)
          index = 0
          loop do
            messages = Messages.new(words(memory.address, index))
            break if messages.empty?

            yield messages
            index += messages.size
            messages.free
          end
          [@scanner.pos, index]
        ensure
          memory&.free
        end

        private

        # No object an event: this is the data path.
        def words(base, index)
          words = []
          last = index + BATCH
          while index < last
            at = @scanner.pos
            if @scanner.skip(@payload_only) && text?
              words.push(0, 0, UNASSIGNED, @size ? base + @begins : 0, @size || 0, 0, 0, 0, index)
            else
              @scanner.pos = at
              unless @payload_first && two_texts?(base, words, index)
                @scanner.pos = at
                break
              end
            end
            index += 1
          end
          words
        end

        def two_texts?(base, words, index)
          first, second = @payload_first
          swapped = false
          unless @scanner.skip(first)
            first, second = @key_first
            swapped = true
            return false unless @scanner.skip(first)
          end
          return false unless text?

          begins = @begins
          size = @size
          return false unless @scanner.skip(second) && text?

          one = [size ? base + begins : 0, size || 0]
          two = [@size ? base + @begins : 0, @size || 0]
          one, two = two, one if swapped
          words.push(0, 0, UNASSIGNED, one[0], one[1], two[0], two[1], 0, index)
          true
        end

        # Goes over a str, a bin or nil, and notes where it begins and its size, nil for nil.
        def text?
          at = @scanner.pos
          case (kind = @entries.getbyte(at))
          when 0xd9, 0xc4
            @begins = at + 2
            @size = @entries.getbyte(at + 1)
          when 0xda, 0xc5
            @begins = at + 3
            @size = @entries.unpack1('n', offset: at + 1)
          when 0xa0..0xbf
            @begins = at + 1
            @size = kind & 0x1f
          when 0xdb, 0xc6
            @begins = at + 5
            @size = @entries.unpack1('N', offset: at + 1)
          when 0xc0
            @begins = at + 1
            @size = nil
            @scanner.pos = @begins
            return true
          else return false
          end
          return false if @size.nil? || @begins + @size > @entries.bytesize

          @scanner.pos = @begins + @size
          true
        end

        def binary(source)
          Regexp.new(source.b, Regexp::MULTILINE | Regexp::FIXEDENCODING | Regexp::NOENCODING)
        end

        def packed(name)
          MessagePack.pack(name.encode(Encoding::UTF_8)).b
        end
      end
    end
  end
end
